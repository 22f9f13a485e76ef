// Why a patch file may be applied: this host derived it, or somebody whose key is trusted signed it. Both are files that only
// root can write.

import ELF
import Foundation
import LivePatch
import ProcessControl

/// What `build` remembers about a patch it derived here.
struct DerivedRecord: Codable {
    var schema = "fother.derived/1"
    var id: String
    var oldSHA256: String
    var newSHA256: String
    /// How each input was come by: `file`, `package file`, `process`, `installed`, `archive` (apt checked its signatures).
    var oldOrigin: String
    var newOrigin: String
    var tool: String
}

struct Trust {
    static let keyBytesMax = 4096
    static let signaturesBytesMax = 64 << 10

    let keysFolder: String
    let derivedFolder: String

    /// `FOTHER_KEYS` and `FOTHER_STATE` name other places.
    init() {
        let environment = ProcessInfo.processInfo.environment
        keysFolder = environment["FOTHER_KEYS"] ?? "/etc/fother/keys"
        derivedFolder = (environment["FOTHER_STATE"] ?? PatchStore.standard) + "/derived"
    }

    /// Why the patch in the file may be applied, for people. Failures: `not-trusted`, `writable-by-others`.
    func reason(_ patch: LivePatch, file: String) throws -> String {
        if let record = try derived(patch.id) { return "derived here, \(record.oldOrigin) against \(record.newOrigin)" }
        let signatures = PatchSignature.all(
            in: String(decoding: (try? RegularFile.read(file + ".sig", limitBytes: Self.signaturesBytesMax)) ?? [], as: UTF8.self))
        for key in try keys() where signatures.contains(where: { $0.isValid(patch.id, by: key) }) { return "signed by \(key.name)" }
        throw Failure(
            "not-trusted",
            signatures.isEmpty ? "this host did not derive it, and nobody signed it." : "no key that this host trusts signed it.", at: file,
            remedy: "Put the signer's key into \(keysFolder), or give --trust-unsigned if you know where the file comes from.")
    }

    /// Notes that this host derived a patch. Whoever may not write there leaves no note.
    func remember(_ record: DerivedRecord) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
        try? FileManager.default.createDirectory(
            atPath: derivedFolder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        guard FileManager.default.isWritableFile(atPath: derivedFolder) else { return }
        let path = "\(derivedFolder)/\(record.id).json"
        do { try encoder.encode(record).write(to: URL(fileURLWithPath: path), options: .atomic) } catch {
            throw Failure("store-unwritable", "the note cannot be kept: \(error.localizedDescription).", at: path)
        }
    }

    private func derived(_ id: PatchID) throws -> DerivedRecord? {
        let path = "\(derivedFolder)/\(id).json"
        guard FileManager.default.fileExists(atPath: path) else { return nil }
        for place in [derivedFolder, path] { try requireOwn(place) }
        guard let record = try? JSONDecoder().decode(DerivedRecord.self, from: Data(RegularFile.read(path, limitBytes: Self.keyBytesMax))),
            record.id == id.description
        else { return nil }
        return record
    }

    private func keys() throws -> [PublicKey] {
        guard let names = try? FileManager.default.contentsOfDirectory(atPath: keysFolder) else { return [] }
        try requireOwn(keysFolder)
        return try names.filter { $0.hasSuffix(".pub") }.sorted().map { name in
            let path = keysFolder + "/" + name
            try requireOwn(path)
            guard let key = PublicKey(String(decoding: try RegularFile.read(path, limitBytes: Self.keyBytesMax), as: UTF8.self)) else {
                throw Failure("key-malformed", "it is no key of fother's.", at: path, remedy: "Make keys with: fother sign --new-key FILE")
            }
            return key
        }
    }

    /// What others can write vouches for nothing.
    private func requireOwn(_ path: String) throws {
        let attributes = try? FileManager.default.attributesOfItem(atPath: path)
        let owner = attributes?[.ownerAccountID] as? UInt, mode = attributes?[.posixPermissions] as? UInt ?? 0o777
        guard let owner, owner == 0 || owner == UInt(geteuid()), mode & 0o022 == 0 else {
            throw Failure(
                "writable-by-others", "others than root can write it, so it vouches for nothing.", at: path,
                remedy: "chown root and chmod go-w it.")
        }
    }
}
