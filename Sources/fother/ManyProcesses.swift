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
        let results = Mutex<[Int: Value]>([:])
        let queue = OperationQueue()
        queue.maxConcurrentOperationCount = width
        for (i, item) in items.enumerated() {
            queue.addOperation {
                let value = body(item)
                let done = results.withLock { results in
                    results[i] = value
                    return results.count
                }
                if items.count > 1, done % 16 == 0 || done == items.count {
                    Output.progress("\(label) \(bar(done, items.count)) \(done) of \(items.count)")
                }
            }
        }
        queue.waitUntilAllOperationsAreFinished()
        Output.progressDone()
        return results.withLock { results in items.indices.compactMap { results[$0] } }
    }

    private static func bar(_ done: Int, _ all: Int) -> String {
        let width = 30, filled = done * width / max(1, all)
        return "[" + String(repeating: "#", count: filled) + String(repeating: ".", count: width - filled) + "]"
    }
}
