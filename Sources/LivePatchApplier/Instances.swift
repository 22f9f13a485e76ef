// Finds loaded objects and what they are: which build, where, with which load bias. Identity is the build ID read from
// the process's memory; a path is only a name.

import ELF
import ProcessControl

/// One loaded copy of an ELF object in one address space.
public struct LoadedObject: Sendable {
    /// Path as the process's own root shows it; a name, never an identity.
    public var path: String
    public var isDeleted: Bool
    /// Nil when the object has none.
    public var buildID: BuildID?
    public var bias: LoadBias
    /// First to last mapped byte, from the program headers, rounded to pages.
    public var extent: Range<RuntimeAddress>
    /// The mapping of file offset 0.
    public var first: Mapping
    public var segments: [Segment]
}

/// What a look at one process found.
public enum ObjectsAnswer: Sendable {
    case objects([LoadedObject])
    /// Looking was not permitted or failed: the process may run anything.
    case couldNotTell(Failure)
    case gone
}

public enum Instances {
    static let page: UInt64 = 4096

    /// Every ELF object mapped in a process. `maps` must be its mappings.
    public static func objects(in maps: [Mapping], of memory: some MemoryReader) -> [LoadedObject] {
        var result: [LoadedObject] = []
        for mapping in maps where mapping.isFile && mapping.offset.value == 0 && mapping.permissions.contains(.read) {
            guard let image = try? MemoryImage(memory, at: mapping.range.lowerBound) else { continue }
            // A file that was only read into memory has no executable mapping of its own.
            let extent = image.extent
            let low = image.bias.runtime(extent.lowerBound).value & ~(page - 1)
            let high = (image.bias.runtime(extent.upperBound).value &+ page - 1) & ~(page - 1)
            guard low < high else { continue }
            let range = RuntimeAddress(low)..<RuntimeAddress(high)
            // Pages of its code may have been put in place by us: they are anonymous.
            let isLoaded = maps.contains {
                $0.permissions.contains(.execute) && range.contains($0.range.lowerBound)
                    && ($0.inode == mapping.inode && $0.device == mapping.device || !$0.isFile)
            }
            guard isLoaded else { continue }
            result.append(
                LoadedObject(
                    path: mapping.path, isDeleted: mapping.isDeleted, buildID: image.buildID, bias: image.bias, extent: range,
                    first: mapping, segments: image.segments))
        }
        return result
    }
}
