// The door to libinjection: does a text look like SQL or script injection? Optional at run time.

import CInjection

enum InjectionDetector {
    static var isAvailable: Bool { cinjection_available() == 1 }

    static func detects(_ kind: Injection, in bytes: Span<UInt8>) -> Bool {
        unsafe bytes.withUnsafeBufferPointer { b in
            guard let base = b.baseAddress else { return false }
            return switch kind {
            case .sql: unsafe cinjection_sql(base, b.count) == 1
            case .script: unsafe cinjection_xss(base, b.count) == 1
            }
        }
    }
}
