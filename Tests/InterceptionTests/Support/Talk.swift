// A client that uses the kernel's own TCP (Fixtures/network/talk.c).

import ELF
import Foundation
import ProcessControl

/// What came back, and how the connection stands: "open", "closed", "reset" or "silent".
struct Answer: Hashable {
    var bytes: [UInt8]
    var state: String
    var text: String { String(decoding: bytes, as: UTF8.self) }
    /// The status of each response, in order.
    var statuses: [Int] {
        text.split(separator: "\r\n").filter { $0.contains("HTTP/1.") }.compactMap { line in
            line.range(of: "HTTP/1.").flatMap { Int(line[$0.upperBound...].dropFirst(2).prefix(3)) }
        }
    }
}

/// One TCP connection.
final class Talk: Sendable {
    private let child: ChildProcess
    /// The client's own port, nil when the connection was refused.
    let port: Int?

    init(_ machine: Machine, to address: String, port: Int = 80) throws {
        child = try machine.talk([try NetworkPrograms.get().path("talk"), address, "\(port)"])
        self.port = try child.readLine().flatMap { $0.hasPrefix("connected ") ? Int($0.dropFirst(10)) : nil }
    }

    func send(_ text: String) throws { try send(Array(text.utf8)) }
    func send(_ bytes: [UInt8]) throws { try child.write("send \(hex(bytes))\n") }
    /// A segment for each byte.
    func sendByteByByte(_ text: String) throws { try child.write("bytes \(hex(Array(text.utf8)))\n") }
    func fill(_ count: Int, _ pattern: String = "a") throws { try child.write("fill \(count) \(hex(Array(pattern.utf8)))\n") }
    func half() throws { try child.write("half\n") }

    /// Waits for that many responses, for the end, or for three seconds of silence.
    func expect(_ responses: Int) throws -> Answer {
        try child.write("expect \(responses)\n")
        guard let got = try child.readLine(timeout: .seconds(60)), got.hasPrefix("got "), let state = try child.readLine() else {
            throw Failure("network", "the client ended.")
        }
        return Answer(bytes: unhex(got.dropFirst(4)), state: state)
    }
}

func hex(_ bytes: [UInt8]) -> String {
    let digits = Array("0123456789abcdef".utf8)
    return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
}

func unhex(_ text: some StringProtocol) -> [UInt8] {
    let values = text.utf8.compactMap { $0 >= 97 ? $0 - 87 : $0 >= 48 ? $0 - 48 : nil }
    return stride(from: 0, to: values.count - 1, by: 2).map { values[$0] << 4 | values[$0 + 1] }
}
