// Maps a patch's code from a file, so that all processes to which it is at the same distance from the old code have the same
// pages: those of one program mostly, wherever the kernel put it, and forked ones always. Whether it is so or not makes no
// difference to anything but memory.

import ELF
import LivePatch
import ProcessControl

/// What of a patch's mapping is in a file.
enum CodeSharing {
    /// This many bytes behind the header.
    case some(bytes: Int, from: Int)
    /// Nothing, and why, if that is worth telling.
    case none(Failure?)

    func holds(_ division: Range<Int>) -> Bool {
        if case .some(let bytes, let from) = self { division.upperBound <= from + bytes } else { false }
    }
}

extension LivePatch {
    /// Whether that part of a linked patch depends on nothing but the distance between the patch and the old code. Addresses
    /// must not be in a file that others can read, either.
    func isShareable(_ parts: Set<Part>) -> Bool {
        contents.relocations.allSatisfy {
            !parts.contains($0.part) || ($0.kind == .pc32 && contents.symbols[$0.symbol].place != .imported)
        }
    }
}

extension Applier {
    /// Maps the patch with its code from a file, if that can be done without the process noticing; if not, nothing was done.
    func mapShared(_ plan: ApplyPlan, _ target: Target) throws -> CodeSharing {
        guard let codeFiles else { return .none(nil) }
        func no(_ sentence: String) -> CodeSharing { .none(Failure("not-shared", sentence, at: "\(target.handle)")) }
        guard target.patch.isShareable([.text]) else { return no("the code holds addresses.") }
        // Opening a file takes a number that another thread may count on, or a child inherit.
        guard try target.handle.threads().count == 1 else { return no("it has several threads.") }
        // Should Fother be killed just then, the filter would judge the call.
        guard try target.handle.status().seccomp == .none else { return no("it has a seccomp filter.") }
        guard let object = target.objects.first(where: { $0.buildID == plan.buildID && $0.bias == plan.bias }) else { return .none(nil) }

        let layout = plan.layout, hasReadOnly = target.patch.isShareable([.readOnly, .unwind, .relro]) && !layout.readOnly.isEmpty
        let bytes = hasReadOnly ? plan.text + plan.readOnly : plan.text
        let file: CodeFile
        do {
            file = try codeFiles.file(hexDigits(sha256(bytes[...])), bytes, labelledLike: target.handle.pathOfFile(behind: object.first))
        } catch { return .none(error) }
        guard target.handle.canName(file) else { return no("its root does not show \(codeFiles.folder).") }

        var calls: [SystemCall] = [.mapAnonymous(at: plan.base, bytes: layout.size, [.read])]
        if !layout.data.isEmpty { calls.append(.protect(plan.base + layout.data.lowerBound, bytes: layout.data.count, [.read, .write])) }
        calls.append(.openFile(path: file.path))
        calls.append(.mapFile(at: plan.newCode.lowerBound, bytes: layout.text.count, [.read, .execute], offset: 0))
        if hasReadOnly {
            let at = plan.base + layout.readOnly.lowerBound
            calls.append(.mapFile(at: at, bytes: layout.readOnly.count, [.read], offset: layout.text.count))
        }
        calls.append(.closeFile)
        do { try tracer.perform(calls, in: target.handle, maps: target.maps) } catch let failure as Failure {
            // It may not be allowed to read the file, or to run it; the room may be too small. Then all was undone.
            guard failure.code == "call-failed" || failure.code == "no-slack",
                try !target.handle.mappings().contains(where: { $0.range.overlaps(plan.mapping) })
            else { throw failure }
            return .none(failure)
        }
        // Somebody may have put another file in its place since.
        guard let mapped = try target.handle.mappings().mapping(at: plan.newCode.lowerBound), target.handle.isMapping(mapped, of: file)
        else {
            unmap(plan, target)
            return no("\(file.path) was another file for it.")
        }
        return .some(bytes: bytes.count, from: layout.text.lowerBound)
    }
}
