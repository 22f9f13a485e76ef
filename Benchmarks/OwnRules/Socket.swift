// A socket on loopback, as far as the proofs need one: blocking, with a limit on how long anything is waited for.

import ELF
import Foundation
import Glibc

struct Socket: Sendable {
    let descriptor: Int32

    init(isUDP: Bool) throws(Failure) {
        descriptor = socket(AF_INET, isUDP ? Int32(SOCK_DGRAM.rawValue) : Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw Failure("socket-failed", "no socket: errno \(errno)") }
        _ = signal(SIGPIPE, SIG_IGN)
        var patience = timeval(tv_sec: 5, tv_usec: 0)
        unsafe setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    }

    private init(_ descriptor: Int32) { self.descriptor = descriptor }

    private static func address(_ port: UInt16) -> sockaddr_in {
        var a = sockaddr_in()
        a.sin_family = sa_family_t(AF_INET)
        a.sin_port = port.bigEndian
        a.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return a
    }

    private static func with(_ a: sockaddr_in, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        var a = a
        return unsafe withUnsafePointer(to: &a) { p in
            unsafe p.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }

    func listen(_ port: UInt16) throws(Failure) {
        var yes: Int32 = 1
        unsafe setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, 4)
        guard unsafe Self.with(Self.address(port), { unsafe bind(descriptor, $0, $1) }) == 0 else {
            throw Failure("socket-failed", "cannot listen on port \(port): errno \(errno)")
        }
        _ = Glibc.listen(descriptor, 16)
    }

    func connect(_ port: UInt16) throws(Failure) {
        guard unsafe Self.with(Self.address(port), { unsafe Glibc.connect(descriptor, $0, $1) }) == 0 else {
            throw Failure("socket-failed", "nothing listens on port \(port): errno \(errno)")
        }
    }

    func accept() throws(Failure) -> Socket {
        let new = Glibc.accept(descriptor, nil, nil)
        guard new >= 0 else { throw Failure("socket-failed", "no connection: errno \(errno)") }
        return Socket(new)
    }

    func receive() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 64 << 10)
        let n = unsafe recv(descriptor, &bytes, bytes.count, 0)
        return n > 0 ? Array(bytes[..<n]) : []
    }

    func send(_ bytes: [UInt8]) -> Bool {
        var sent = 0
        while sent < bytes.count {
            let n = unsafe bytes.withUnsafeBytes {
                unsafe Glibc.send(descriptor, $0.baseAddress.map { unsafe $0 + sent }, bytes.count - sent, Int32(MSG_NOSIGNAL))
            }
            guard n > 0 else { return false }
            sent += n
        }
        return true
    }

    func receiveFrom() -> ([UInt8], sockaddr_in) {
        var bytes = [UInt8](repeating: 0, count: 64 << 10)
        var from = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let n = unsafe withUnsafeMutablePointer(to: &from) { p in
            unsafe p.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe recvfrom(descriptor, &bytes, bytes.count, 0, $0, &length) }
        }
        return (n > 0 ? Array(bytes[..<n]) : [], from)
    }

    func sendTo(_ bytes: [UInt8], _ to: sockaddr_in) {
        _ = unsafe Self.with(to) { unsafe Int32(sendto(descriptor, bytes, bytes.count, 0, $0, $1)) }
    }

    func finishSending() { _ = shutdown(descriptor, Int32(SHUT_WR)) }
    func close() { _ = Glibc.close(descriptor) }

    /// Closes so that the other side sees the connection reset.
    func reset() {
        var now = linger(l_onoff: 1, l_linger: 0)
        unsafe setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &now, socklen_t(MemoryLayout<linger>.size))
        close()
    }

    /// Indexes of the sockets that have something, or have ended; none when nothing came in time.
    static func wait(_ sockets: [Socket], milliseconds: Int32) -> [Int] {
        var list = sockets.map { pollfd(fd: $0.descriptor, events: Int16(POLLIN), revents: 0) }
        guard unsafe poll(&list, nfds_t(list.count), milliseconds) > 0 else { return [] }
        return list.indices.filter { list[$0].revents != 0 }
    }
}
