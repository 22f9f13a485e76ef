// The literals of all rules in one database and nothing behind it: what an engine with these rules cannot be faster than.

import ELF

/// For measuring, and for tests that count literals. One per thread.
public final class LiteralScan {
    private let prefilter: Prefilter
    private let scratch: PrefilterScratch

    /// The literals that the engine looks for in streams and bodies of requests.
    public init(_ rules: CompiledRules) throws(Failure) {
        var seen: Set<LiteralKey> = []
        var all: [Prefilter.Literal] = []
        for moment in [Moment.packet, .requestHead, .requestBody] {
            for literal in rules.prefilters[moment]?.literals ?? [] {
                guard seen.insert(LiteralKey(bytes: literal.bytes, ignoresCase: literal.ignoresCase)).inserted else { continue }
                all.append(literal)
            }
        }
        prefilter = try Prefilter(all)
        scratch = try PrefilterScratch(for: [prefilter])
    }

    public var literalCount: Int { prefilter.count }

    /// How many of the literals occur.
    public func count(in bytes: Span<UInt8>) -> Int {
        var n = 0
        prefilter.scan(bytes, scratch) { _ in n += 1 }
        return n
    }
}
