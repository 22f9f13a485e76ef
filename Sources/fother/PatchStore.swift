// The patches that this host holds: what `ps` compares memory with, and where `revert` finds the old bytes.

import ELF
import Foundation
import LivePatch
import ProcessControl
import Synchronization

struct PatchStore {
    /// Root's own: who can write here can make a forged patch look like one of ours.
    static let standard = "/var/lib/fother"

    let folder: String

    /// `FOTHER_STATE` names another place.
    private static var state: String { ProcessInfo.processInfo.environment["FOTHER_STATE"] ?? standard }

    init() { folder = Self.state + "/patches" }

    /// Where code is that several processes map: they must be able to read it.
    static var codeFolder: String { state + "/code" }

    static var cacheFolder: String { ProcessInfo.processInfo.environment["FOTHER_CACHE"] ?? "/var/cache/fother" }

    /// Keeps a copy; the name is the id, so the same patch is kept once.
    func keep(_ file: [UInt8], _ id: PatchID) throws {
        // What was judged may have been exchanged since it was read.
        guard PatchID(of: file) == id else {
            throw Failure("patch-exchanged", "the file changed while it was looked at.", at: id.short, remedy: "Find out who writes it.")
        }
        do {
            try FileManager.default.createDirectory(
                atPath: Self.state, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
            try FileManager.default.createDirectory(
                atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
            let path = path(id)
            guard !FileManager.default.fileExists(atPath: path) else { return }
            let temporary = path + ".\(ProcessID.own)"
            guard FileManager.default.createFile(atPath: temporary, contents: Data(file), attributes: [.posixPermissions: 0o600]) else {
                throw Failure("store-unwritable", "the patch cannot be kept.", at: folder)
            }
            try FileManager.default.moveItem(atPath: temporary, toPath: path)
        } catch let failure as Failure {
            throw failure
        } catch {
            throw Failure(
                "store-unwritable", "the patch cannot be kept: \(error.localizedDescription).", at: folder,
                remedy: "Run as root, or set FOTHER_STATE to a folder of yours.")
        }
    }

    private func path(_ id: PatchID) -> String { folder + "/\(id).fother" }

    /// The patch with this id; nil when it is not held or what is held is not it.
    func patch(_ id: PatchID) -> LivePatch? {
        guard let bytes = try? RegularFile.read(path(id)), let patch = try? LivePatch(parsing: bytes, name: path(id)), patch.id == id else {
            return nil
        }
        return patch
    }

    /// A patch by file, id, or the beginning of an id. Failures: `patch-not-held`, `id-ambiguous`.
    func find(_ word: String) throws -> LivePatch {
        if FileManager.default.fileExists(atPath: word) { return try LivePatch(parsing: RegularFile.read(word), name: word) }
        let names = ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).filter {
            $0.hasSuffix(".fother") && $0.hasPrefix(word)
        }
        guard word.count >= 4, let name = names.first else {
            throw Failure(
                "patch-not-held", "this host holds no patch with that id.", at: word,
                remedy: "Give the patch file itself, or see fother ps for the ids in use.")
        }
        guard names.count == 1 else {
            throw Failure("id-ambiguous", "\(names.count) patches begin like that.", at: word, remedy: "Give more digits.")
        }
        let patch = try LivePatch(parsing: RegularFile.read(folder + "/" + name), name: name)
        guard name == "\(patch.id).fother" else {
            throw Failure("patch-exchanged", "what is held under this id is another patch.", at: name, remedy: "Remove it from \(folder).")
        }
        return patch
    }
}

/// Remembers parsed patches during one command.
final class HeldPatches: Sendable {
    private let store: PatchStore
    private let known: Mutex<[PatchID: LivePatch?]>

    init(_ store: PatchStore, also patches: [LivePatch] = []) {
        self.store = store
        known = Mutex(Dictionary(patches.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first }))
    }

    subscript(_ id: PatchID) -> LivePatch? {
        if let answer = known.withLock({ $0[id] }) { return answer }
        let answer = store.patch(id)
        known.withLock { $0[id] = .some(answer) }
        return answer
    }
}
