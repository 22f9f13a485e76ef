// Does the same to many processes at once, so that one that blocks holds up nobody, and shows how far it is.

import Foundation
import Synchronization

enum ManyProcesses {
    /// At once: most of the time is waiting for others to reach a safe point, so this may exceed the processors.
    static let width = 16

    /// `body` of every item, results in the items' order. `label` goes before the progress on a terminal.
    static func map<Item: Sendable, Value: Sendable>(_ items: [Item], _ label: String, _ body: @escaping @Sendable (Item) -> Value)
        -> [Value]
    {
        let results = Mutex<[Int: Value]>([:]), next = Atomic(0)
        // Threads of our own: a queue runs no more at once than there are processors, and most of the time they wait.
        let done = DispatchGroup()
        for _ in 0..<min(width, items.count) {
            done.enter()
            Thread.detachNewThread {
                while true {
                    let i = next.wrappingAdd(1, ordering: .relaxed).oldValue
                    guard i < items.count else { break }
                    let value = body(items[i])
                    let count = results.withLock { results in
                        results[i] = value
                        return results.count
                    }
                    if items.count > 1, count % 16 == 0 || count == items.count {
                        Output.progress("\(label) \(bar(count, items.count)) \(count) of \(items.count)")
                    }
                }
                done.leave()
            }
        }
        done.wait()
        Output.progressDone()
        return results.withLock { results in items.indices.compactMap { results[$0] } }
    }

    private static func bar(_ done: Int, _ all: Int) -> String {
        let width = 30, filled = done * width / max(1, all)
        return "[" + String(repeating: "#", count: filled) + String(repeating: ".", count: width - filled) + "]"
    }
}
