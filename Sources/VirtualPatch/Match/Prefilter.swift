// Finds which of thousands of literals a buffer holds, in one pass by Vectorscan; says also how long an expression's match can be.

import CVectorscan
import ELF
import Glibc

/// Literals of one buffer, compiled. Immutable; scanning needs a `PrefilterScratch` of the scanning thread.
@safe final class Prefilter: Sendable {
    struct Literal: Sendable {
        var bytes: [UInt8]
        var ignoresCase: Bool
    }
    private nonisolated(unsafe) let database: OpaquePointer
    let literals: [Literal]
    var count: Int { literals.count }
    /// The longest literal: so many bytes less one must overlap between two scans of a stream.
    let longest: Int

    init(_ literals: [Literal]) throws(Failure) {
        let sources = literals.map { literal in
            literal.bytes.reduce(into: "") { text, byte in
                let digits = String(byte, radix: 16)
                text += "\\x" + (digits.count < 2 ? "0" : "") + digits
            }
        }
        let flags = literals.map { UInt32(HS_FLAG_SINGLEMATCH) | UInt32(HS_FLAG_DOTALL) | ($0.ignoresCase ? UInt32(HS_FLAG_CASELESS) : 0) }
        let ids = (0..<literals.count).map { UInt32($0) }
        var database: OpaquePointer?
        var problem: UnsafeMutablePointer<hs_compile_error_t>?
        var texts = unsafe sources.map { unsafe strdup($0) }
        defer { unsafe texts.forEach { unsafe free($0) } }
        let rc = unsafe texts.withUnsafeMutableBufferPointer { pointers in
            unsafe pointers.withMemoryRebound(to: UnsafePointer<CChar>?.self) { expressions in
                unsafe hs_compile_multi(
                    expressions.baseAddress, flags, ids, UInt32(literals.count), UInt32(HS_MODE_BLOCK), nil, &database, &problem)
            }
        }
        guard rc == HS_SUCCESS, let database = unsafe database else {
            let text = unsafe problem.flatMap { unsafe $0.pointee.message }.map { unsafe String(cString: $0) } ?? "error \(rc)"
            unsafe hs_free_compile_error(problem)
            throw Failure("prefilter-failed", "the literals of the rules do not compile: \(text)")
        }
        unsafe self.database = database
        self.literals = literals
        longest = literals.map(\.bytes.count).max() ?? 0
    }

    deinit { _ = unsafe hs_free_database(database) }

    fileprivate func prepare(_ scratch: inout OpaquePointer?) throws(Failure) {
        guard unsafe hs_alloc_scratch(database, &scratch) == HS_SUCCESS else {
            throw Failure("prefilter-failed", "no memory for scanning")
        }
    }

    /// Calls `body` with the index of each literal that occurs, at most once each.
    func scan(_ bytes: Span<UInt8>, _ scratch: PrefilterScratch, _ body: (Int) -> Void) {
        guard bytes.count > 0, bytes.count < Int(UInt32.max) else { return }
        unsafe scratch.hits[0] = 0
        _ = unsafe bytes.withUnsafeBufferPointer { b in
            unsafe b.baseAddress.map { base in
                unsafe base.withMemoryRebound(to: CChar.self, capacity: b.count) { text in
                    unsafe hs_scan(
                        database, text, UInt32(b.count), 0, scratch.scratch,
                        { id, _, _, _, context in
                            guard let hits = unsafe context?.assumingMemoryBound(to: UInt32.self) else { return 1 }
                            let n = unsafe hits[0]
                            unsafe hits[Int(n) + 1] = id
                            unsafe hits[0] = n + 1
                            return 0
                        }, scratch.hits)
                }
            }
        }
        let n = unsafe Int(scratch.hits[0])
        for i in 0..<n { unsafe body(Int(scratch.hits[i + 1])) }
    }
}

/// What one scanning thread needs: never shared between threads.
@safe final class PrefilterScratch {
    fileprivate let scratch: OpaquePointer?
    /// The number of hits, then the hits. Each literal is told once a scan, so it has room for all.
    fileprivate let hits: UnsafeMutablePointer<UInt32>

    init(for prefilters: [Prefilter]) throws(Failure) {
        var scratch: OpaquePointer?
        for prefilter in prefilters { try unsafe prefilter.prepare(&scratch) }
        unsafe self.scratch = scratch
        unsafe hits = .allocate(capacity: (prefilters.map(\.count).max() ?? 0) + 1)
    }

    deinit {
        if let scratch = unsafe scratch { _ = unsafe hs_free_scratch(scratch) }
        unsafe hits.deallocate()
    }
}

extension Pattern {
    /// The longest match in bytes; nil where there is no bound, or none can be told.
    var boundedLength: Int? {
        // Text before or after the match decides too: no window holds it.
        guard !source.contains("(?"), !source.contains("\\b"), !source.contains("\\B"), !source.contains("\\G") else { return nil }
        guard !source.contains("^") || isRelative || source.contains("[^"), !source.contains("$") else { return nil }
        var info: UnsafeMutablePointer<hs_expr_info_t>?
        var problem: UnsafeMutablePointer<hs_compile_error_t>?
        let flags =
            (ignoresCase ? UInt32(HS_FLAG_CASELESS) : 0) | (dotMatchesNewline ? UInt32(HS_FLAG_DOTALL) : 0) | UInt32(HS_FLAG_ALLOWEMPTY)
        let rc = unsafe hs_expression_info(source, flags, &info, &problem)
        defer {
            unsafe free(info)
            unsafe hs_free_compile_error(problem)
        }
        guard rc == HS_SUCCESS, let info = unsafe info, unsafe info.pointee.max_width != UInt32.max else { return nil }
        let width = unsafe Int(info.pointee.max_width)
        return width <= StreamingClass.windowBytes / 4 ? width : nil
    }
}
