// The door to libhtp: bytes of one connection in, events out.

import CHTP
import ELF

/// Which server's reading of paths to assume.
public enum ServerProfile: Int32, Sendable, CaseIterable {
    case generic = 0
    case apache = 1
    case iis = 2
    case nginx = 3

    public init?(name: String) {
        switch name {
        case "generic": self = .generic
        case "apache": self = .apache
        case "iis": self = .iis
        case "nginx": self = .nginx
        default: return nil
        }
    }
}

/// A profile's settings; connections keep it alive.
@safe final class HTTPConfiguration {
    fileprivate let config: OpaquePointer

    init(profile: ServerProfile, headerLimitBytes: Int) throws(Failure) {
        guard
            let config = unsafe chtp_config_create(
                profile.rawValue, headerLimitBytes,
                { context, event, a, aCount, b, bCount in
                    guard let context = unsafe context else { return }
                    let session = unsafe Unmanaged<HTTPSession>.fromOpaque(context).takeUnretainedValue()
                    let first = unsafe UnsafeBufferPointer(start: a, count: a == nil ? 0 : aCount)
                    let second = unsafe UnsafeBufferPointer(start: b, count: b == nil ? 0 : bCount)
                    unsafe session.event(Int(event), Span(_unsafeElements: first), Span(_unsafeElements: second))
                })
        else { throw Failure("http-parser-failed", "libhtp did not take the configuration") }
        unsafe self.config = config
    }

    deinit { unsafe chtp_config_destroy(config) }
}

/// One connection's parser.
@safe final class HTTPParser {
    enum Outcome { case ok, error, tunnel, other }

    private let connection: OpaquePointer
    private let configuration: HTTPConfiguration

    init?(_ configuration: HTTPConfiguration) {
        self.configuration = configuration
        guard let connection = unsafe chtp_connection_create(configuration.config) else { return nil }
        unsafe self.connection = connection
    }

    deinit { unsafe chtp_connection_destroy(connection) }

    func feedRequest(_ bytes: Span<UInt8>, to session: HTTPSession, requestsOnly: Bool) -> Outcome {
        let context = unsafe Unmanaged.passUnretained(session).toOpaque()
        return unsafe bytes.withUnsafeBufferPointer { b in
            guard let base = b.baseAddress else { return .ok }
            return unsafe outcome(chtp_request_data(connection, context, base, b.count, requestsOnly ? 1 : 0))
        }
    }

    func feedResponse(_ bytes: Span<UInt8>, to session: HTTPSession) -> Outcome {
        let context = unsafe Unmanaged.passUnretained(session).toOpaque()
        return unsafe bytes.withUnsafeBufferPointer { b in
            guard let base = b.baseAddress else { return .ok }
            return unsafe outcome(chtp_response_data(connection, context, base, b.count))
        }
    }

    func close(_ session: HTTPSession) { unsafe chtp_close(connection, Unmanaged.passUnretained(session).toOpaque()) }
    func closeRequests(_ session: HTTPSession) { unsafe chtp_close_requests(connection, Unmanaged.passUnretained(session).toOpaque()) }

    /// When a request is done: where it ended in the bytes that are being read.
    var requestEnd: Int { unsafe Int(chtp_request_end(connection)) }

    /// When a head is there: where its request will end, counted alike; nil where only the body's framing tells.
    var expectedEnd: Int? {
        let end = unsafe chtp_expected_end(connection)
        return end < 0 ? nil : Int(end)
    }

    var isAtRest: Bool { unsafe chtp_is_at_rest(connection) != 0 }
    /// Makes a parser at rest ready for another connection.
    func reuse() -> Bool { unsafe chtp_reuse(connection) == 0 }

    var hasInvalidTransferEncoding: Bool {
        unsafe chtp_last_flags(connection) & 0x400 != 0
    }

    private func outcome(_ code: Int32) -> Outcome {
        switch code {
        case 0: .ok
        case -2: .tunnel
        case -3: .other
        default: .error
        }
    }
}
