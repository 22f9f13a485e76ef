// Regular expressions over bytes by PCRE2: compiled once with its just-in-time compiler, matched with limits.

import CPCRE2
import ELF

/// A compiled expression. Immutable after creation, so threads may share it; each match takes its own scratch.
@safe public final class Regex: Sendable {
    /// Steps of one match; beyond it the answer is `limit`, which is a verdict of its own.
    static let matchLimit: UInt32 = 1_000_000
    static let depthLimit: UInt32 = 1_000
    static let sourceLimitBytes = 16 << 10

    private nonisolated(unsafe) let code: OpaquePointer
    private nonisolated(unsafe) let context: OpaquePointer
    /// The number of groups.
    let groups: Int
    /// No match is shorter.
    let minimumLength: Int

    enum Outcome: Equatable {
        case found(start: Int, end: Int)
        /// No match, but one that began here may be completed by bytes that follow.
        case begun(start: Int)
        case none
        case limit
    }

    /// `grows`: it will be asked what bytes that are to come may complete.
    init(_ p: Pattern, grows: Bool = false) throws(Failure) {
        guard p.source.utf8.count <= Self.sourceLimitBytes else {
            throw Failure("rule-malformed", "the expression is longer than \(Self.sourceLimitBytes) bytes")
        }
        var options = UInt32(0)
        if p.ignoresCase { options |= UInt32(PCRE2_CASELESS) }
        if p.dotMatchesNewline { options |= UInt32(PCRE2_DOTALL) }
        if p.isMultiline { options |= UInt32(PCRE2_MULTILINE) }
        if p.isExtended { options |= UInt32(PCRE2_EXTENDED) }
        if p.isAnchored { options |= UInt32(bitPattern: Int32(truncatingIfNeeded: PCRE2_ANCHORED)) }
        if p.isUngreedy { options |= UInt32(PCRE2_UNGREEDY) }
        if p.isDollarEndOnly { options |= UInt32(PCRE2_DOLLAR_ENDONLY) }
        var error: Int32 = 0
        var offset = 0
        let source = Array(p.source.utf8)
        let compiled = unsafe source.withUnsafeBufferPointer { bytes in
            unsafe pcre2_compile_8(bytes.baseAddress, bytes.count, options, &error, &offset, nil)
        }
        guard let compiled = unsafe compiled else {
            var text = [UInt8](repeating: 0, count: 160)
            let n = unsafe text.withUnsafeMutableBufferPointer { unsafe pcre2_get_error_message_8(error, $0.baseAddress, $0.count) }
            let message = n > 0 ? String(decoding: text.prefix(Int(n)), as: UTF8.self) : "error \(error)"
            throw Failure("rule-expression-invalid", "the expression does not compile: \(message) at \(offset)")
        }
        // Without the just-in-time compiler the interpreter takes over: slower, the same answers.
        _ = unsafe pcre2_jit_compile_8(compiled, UInt32(PCRE2_JIT_COMPLETE) | (grows ? UInt32(PCRE2_JIT_PARTIAL_SOFT) : 0))
        guard let context = unsafe pcre2_match_context_create_8(nil) else {
            unsafe pcre2_code_free_8(compiled)
            throw Failure("rule-expression-invalid", "no memory for the expression")
        }
        _ = unsafe pcre2_set_match_limit_8(context, Self.matchLimit)
        _ = unsafe pcre2_set_depth_limit_8(context, Self.depthLimit)
        var count: UInt32 = 0
        var minimum: UInt32 = 0
        _ = unsafe pcre2_pattern_info_8(compiled, UInt32(PCRE2_INFO_CAPTURECOUNT), &count)
        _ = unsafe pcre2_pattern_info_8(compiled, UInt32(PCRE2_INFO_MINLENGTH), &minimum)
        unsafe self.code = compiled
        unsafe self.context = context
        groups = Int(count)
        minimumLength = Int(minimum)
    }

    deinit {
        unsafe pcre2_match_context_free_8(context)
        unsafe pcre2_code_free_8(code)
    }

    /// Whether the expression compiles, for refusing a rule with its place.
    static func check(_ p: Pattern) throws(Failure) { _ = try Regex(p) }

    /// The first match that starts at or after `start`; `group` 0 is the whole match. `grows`: more bytes will follow these;
    /// `isContinued`: others came before, so that no beginning is here.
    func find(in bytes: Span<UInt8>, from start: Int, group: Int = 0, grows: Bool = false, isContinued: Bool = false) -> Outcome {
        guard start >= 0, start <= bytes.count, group <= groups else { return .none }
        guard let data = unsafe pcre2_match_data_create_from_pattern_8(code, nil) else { return .limit }
        defer { unsafe pcre2_match_data_free_8(data) }
        let options = (grows ? UInt32(PCRE2_PARTIAL_SOFT) : 0) | (isContinued ? UInt32(PCRE2_NOTBOL) : 0)
        func match(_ options: UInt32) -> Int32 {
            unsafe bytes.withUnsafeBufferPointer { b in
                if let base = b.baseAddress { return unsafe pcre2_match_8(code, base, b.count, start, options, data, context) }
                var none: UInt8 = 0
                return unsafe pcre2_match_8(code, &none, 0, 0, options, data, context)
            }
        }
        var rc = match(options)
        // The compiled form has a stack of its own, and it is small.
        if rc == PCRE2_ERROR_JIT_STACKLIMIT { rc = match(options | UInt32(PCRE2_NO_JIT)) }
        if rc == PCRE2_ERROR_PARTIAL, let pairs = unsafe pcre2_get_ovector_pointer_8(data) {
            return .begun(start: min(max(start, unsafe pairs[0]), bytes.count))
        }
        if rc == PCRE2_ERROR_NOMATCH { return .none }
        guard rc > 0 else { return .limit }
        guard rc > group, let pairs = unsafe pcre2_get_ovector_pointer_8(data) else { return .none }
        let from = unsafe pairs[2 * group], to = unsafe pairs[2 * group + 1]
        guard from <= to, to <= bytes.count else { return .none }
        return .found(start: from, end: to)
    }
}
