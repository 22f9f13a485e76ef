// Tells objects that stay loaded until the process ends from those that may be unloaded at any moment.

import ELF
import ProcessControl

enum LoadedForGood {
    /// The program, and what it needed to start: no loader ever takes those away. An object that was loaded later, or that
    /// cannot be shown to have been there from the start, may be gone at any moment, and something else in its place.
    static func contains(_ object: LoadedObject, of objects: [LoadedObject], _ process: ProcessHandle, _ memory: ProcessMemory) -> Bool {
        guard let headers = try? process.programHeaders(), let program = objects.firstIndex(where: { $0.extent.contains(headers) }) else {
            return false
        }
        let names = objects.map { DynamicSymbols(memory, bias: $0.bias, segments: $0.segments, extent: $0.extent) }
        var reached = [program]
        var next = 0
        while next < reached.count {
            let needed = names[reached[next]]?.needed ?? []
            next += 1
            for (i, other) in objects.enumerated() where !reached.contains(i) {
                let isNeeded = names[i]?.soname.map(needed.contains) ?? false
                if isNeeded || needed.contains(where: { other.path.hasSuffix("/" + $0) }) { reached.append(i) }
            }
        }
        return reached.contains { objects[$0].bias == object.bias }
    }
}
