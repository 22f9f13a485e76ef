// Colour is meaning: each meaning is a function, plain text unless the output is a terminal and NO_COLOR is not set.

import Foundation

enum Theme {
    private static let wantsColour = ProcessInfo.processInfo.environment["NO_COLOR"] == nil
    static let isColoured = isatty(1) == 1 && wantsColour
    static let hasTerminalErrors = isatty(2) == 1

    static func good(_ s: String) -> String { paint(s, "32") }
    static func exposed(_ s: String) -> String { paint(s, "31") }
    static func review(_ s: String) -> String { paint(s, "33") }
    static func strong(_ s: String) -> String { paint(s, "1") }
    static func quiet(_ s: String) -> String { paint(s, "2") }
    static func exposedOnErrors(_ s: String) -> String { hasTerminalErrors && wantsColour ? "\u{1b}[31m\(s)\u{1b}[0m" : s }

    private static func paint(_ s: String, _ code: String) -> String { isColoured ? "\u{1b}[\(code)m\(s)\u{1b}[0m" : s }
}
