// Decides one test on a TCP stream as its bytes come: what began and is not complete is waited for, as long as its bytes are kept.

extension CompiledTest {
    /// Whether the bytes before the literal that brought a rule may hold a part of what its test asks for.
    enum Before: Comparable {
        case nothing
        /// Other parts, independent of the literal's own.
        case others
        /// A part that the literal's must follow.
        case first
    }

    func before(_ literals: [[UInt8]]) -> Before {
        let leading = groups.lazy.filter(\.isPositive).map { $0.leads(to: literals) }
        return leading.allSatisfy(\.self) ? .nothing : leading.contains(true) ? .others : .first
    }

    /// Looks at what came since the last call. `.later`: more bytes decide; nothing that was found or begun is lost.
    func advanceOnStream(_ progress: inout TestProgress, _ store: borrowing StreamStore) -> Answer {
        var isLater = false
        for g in groups.indices where groups[g].isPositive && !progress.groups[g].isDone {
            switch find(g, &progress, store) {
            case .yes: progress.groups[g].isDone = true
            case .cannot: return .cannot
            case .no, .later: isLater = true
            }
        }
        if isLater { return .later }
        // A stream has no end that a rule could wait for: negations and sizes hold for what has come.
        for g in groups.indices where !groups[g].isPositive {
            if let size = groups[g].size, !size.holds(store.total) { return .no }
            guard groups[g].isNegated, let segment = groups[g].segments.first else { continue }
            var matcher = Matcher()
            let base = min(max(store.base, progress.groups[g].floor), store.total)
            let holds = matcher.holds(
                segment.steps, from: 0, in: store.bytes.span.extracting((base - store.base)..<store.bytes.count), base: base)
            progress.hitsLimit = matcher.hitLimit
            if holds || matcher.hitLimit { return holds ? .no : .cannot }
        }
        return .yes
    }

    private func find(_ g: Int, _ progress: inout TestProgress, _ store: borrowing StreamStore) -> Answer {
        let group = groups[g]
        while progress.groups[g].segment < group.segments.count {
            let segment = group.segments[progress.groups[g].segment]
            let at = progress.groups[g]
            let base = min(max(store.base, at.floor), store.total)
            var matcher = Matcher()
            matcher.grows = true
            matcher.position = at.end
            matcher.total = store.total
            matcher.resumesAt = group.isChain ? 0 : min(at.begunAt ?? at.looked, at.looked - segment.literalBytes + 1)
            let holds = matcher.holds(
                segment.steps, from: 0, in: store.bytes.span.extracting((base - store.base)..<store.bytes.count), base: base)
            progress.hitsLimit = matcher.hitLimit
            if matcher.hitLimit { return .cannot }
            guard holds else {
                progress.groups[g].looked = store.total
                progress.groups[g].begunAt = matcher.begunAt
                return matcher.begunAt.map { store.total - $0 > StreamingClass.windowBytes ? .cannot : .later } ?? .later
            }
            if progress.offset == nil { progress.offset = matcher.firstOffset }
            progress.groups[g].end = matcher.position
            progress.groups[g].looked = matcher.position
            progress.groups[g].begunAt = nil
            progress.groups[g].segment += 1
        }
        return .yes
    }
}

extension TestProgress {
    /// A part was found, or may be completed by what comes.
    var hasBegun: Bool { groups.contains { $0.segment > 0 || $0.begunAt != nil } }
}
