// Separate debug files, found by build ID as distributions lay them out: DIR/.build-id/ab/cdef….debug.

import ELF
import Foundation
import ProcessControl

public enum DebugFiles {
    public static let standard = "/usr/lib/debug"
    public static let bytesMax = 1 << 30

    /// The debug file of the build in `object`, or nil where none of the folders has it. Failures: those of reading it.
    public static func find(for object: [UInt8], in folders: [String]) throws -> [UInt8]? {
        guard let id = try ELFFile(object, name: "object").buildID?.description, id.count > 2 else { return nil }
        let part = id.prefix(2) + "/" + id.dropFirst(2) + ".debug"
        for folder in folders {
            for path in ["\(folder)/.build-id/\(part)", "\(folder)/\(part)"] where FileManager.default.fileExists(atPath: path) {
                return try decompressed(RegularFile.read(path, limitBytes: bytesMax))
            }
        }
        return nil
    }

    /// Distributions compress the sections; binutils undo that, as nobody.
    private static func decompressed(_ bytes: [UInt8]) throws -> [UInt8] {
        let file = try ELFFile(bytes, name: "debug file")
        guard file.sections.contains(where: { $0.name.hasPrefix(".debug_") && $0.isCompressed }) else { return bytes }
        let work = try Unprivileged.folder()
        defer { try? FileManager.default.removeItem(atPath: work) }
        try Data(bytes).write(to: URL(fileURLWithPath: work + "/in"))
        _ = try ChildProcess.runChecked(
            Unprivileged.command(["objcopy", "--decompress-debug-sections", work + "/in", work + "/out"]), directory: work)
        return try RegularFile.read("out", in: work, limitBytes: bytesMax)
    }
}
