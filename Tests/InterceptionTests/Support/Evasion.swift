// One way to carry an exploit past a filter below HTTP, and what the application makes of it where there is no filter.

import Foundation
import Testing

/// `perform` sends on a connection that it makes itself; afterwards the attacker insists on `stream`.
struct Evasion: Sendable, CustomTestStringConvertible {
    var name: String
    /// What the attacker wants the application to read: the exploit, one whole request.
    var stream: [UInt8] = Evasion.exploit
    /// Whether it gets there without a filter: the control. Rows where it does not keep a filter from inventing a passage.
    var reaches = true
    var application: [String] = []
    /// Of the server's kernel: `NAME=VALUE`.
    var settings: [String] = []
    var versions: Set<Int> = [4, 6]
    /// Between client and server; nil: none, and behind one.
    var routers: Int?
    var perform: @Sendable (Attack) throws -> Void

    var testDescription: String { name }

    static let exploit = Array("GET /evil-path HTTP/1.1\r\nHost: x\r\n\r\n".utf8)
    /// As long, and harmless.
    static let decoy = Array("GET /good-path HTTP/1.1\r\nHost: x\r\n\r\n".utf8)
    /// Where both differ.
    static let difference = 5..<9

    /// Whether an application that read this read the exploit: the whole request, not just its beginning.
    static func isIn(_ bytes: [UInt8]) -> Bool {
        let text = String(decoding: bytes, as: UTF8.self)
        guard let path = text.range(of: "/evil-path") else { return false }
        return text[path.upperBound...].contains("\r\n\r\n")
    }

    /// A rule against the exploit, and one against its like in a body.
    static let rules = """
        alert http any any -> any any (msg:"evil path"; flow:to_server; http.uri; content:"/evil-path"; reference:cve,2099-0001; sid:1;)
        alert http any any -> any any (msg:"evil body"; flow:to_server; http.request_body; content:"EVILPAYLOAD"; reference:cve,2099-0002; sid:2;)

        """
}
