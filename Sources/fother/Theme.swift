// Colour is meaning: each meaning is a function, plain text unless the output is a terminal and NO_COLOR is not set.

import Foundation

enum Theme {
    static let isColoured = isatty(1) == 1 && ProcessInfo.processInfo.environment["NO_COLOR"] == nil

    static func good(_ s: String) -> String { paint(s, "32") }
    static func exposed(_ s: String) -> String { paint(s, "31") }
    static func review(_ s: String) -> String { paint(s, "33") }
    static func strong(_ s: String) -> String { paint(s, "1") }
    static func quiet(_ s: String) -> String { paint(s, "2") }

    private static func paint(_ s: String, _ code: String) -> String { isColoured ? "\u{1b}[\(code)m\(s)\u{1b}[0m" : s }
}
