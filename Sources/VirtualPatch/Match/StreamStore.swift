// The bytes of one body or stream on one view: all of it up to a limit, then the last part.

struct StreamStore {
    private(set) var bytes: [UInt8] = []
    /// The position of `bytes[0]`.
    private(set) var base = 0
    /// Bytes that came, kept or not.
    private(set) var total = 0
    /// Up to where the prefilter has looked.
    var scanned = 0
    var isEnded = false

    /// Nothing was let go of.
    var isComplete: Bool { base == 0 }

    mutating func clear() {
        bytes.removeAll(keepingCapacity: bytes.capacity <= StreamingClass.windowBytes)
        base = 0
        total = 0
        scanned = 0
        isEnded = false
    }

    /// Keeps all up to `wholeLimit`, beyond that the latest `windowBytes`.
    mutating func append(_ new: Span<UInt8>, wholeLimit: Int) {
        let window = StreamingClass.windowBytes
        total += new.count
        if total > wholeLimit, bytes.count > 2 * window {
            let drop = bytes.count - window
            bytes.removeFirst(drop)
            base += drop
        }
        bytes.append(new)
    }

    /// Lets go of all but the last `count` bytes.
    mutating func keepLast(_ count: Int) {
        guard bytes.count > count else { return }
        let drop = bytes.count - count
        bytes.removeFirst(drop)
        base += drop
    }
}

/// How far one test has come in one stream.
struct TestProgress {
    struct Group {
        var segment = 0
        /// Where the segment before ended.
        var end = 0
        /// Up to where the current segment was looked for.
        var looked = 0
        var isDone = false
        /// Nothing before counts.
        var floor = 0
        /// On a stream: where a match began that bytes which are to come may complete.
        var begunAt: Int?
    }
    var groups: [Group]
    var isDecided: Answer?
    /// On a stream: the answer is missing because a rule is not given more steps, not because bytes are gone.
    var hitsLimit = false
    var offset: Int?
    /// The stream's length when the whole of it was last looked at.
    var wholeAt = 0
    /// For tests that need the whole: the literal without which the test cannot hold was seen.
    var literalLooked = 0
    var literalSeen = false

    init(_ test: CompiledTest, from: Int = 0) {
        groups = Array(repeating: Group(end: from, looked: from), count: test.groups.count)
        if from > 0 { for g in groups.indices { groups[g].floor = from } }
    }
}

/// Three answers, and the time before the answer.
enum Answer: Equatable {
    case yes, no
    /// More bytes decide.
    case later
    /// A limit was reached: uninspectable.
    case cannot
}

extension CompiledTest {
    /// Looks at what came since the last call.
    func advance(_ progress: inout TestProgress, _ store: borrowing StreamStore, isEnd: Bool) -> Answer {
        if let decided = progress.isDecided { return decided }
        let answer = streaming == .whole ? whole(&progress, store, isEnd) : segments(&progress, store, isEnd)
        if answer != .later { progress.isDecided = answer }
        return answer
    }

    private func segments(_ progress: inout TestProgress, _ store: borrowing StreamStore, _ isEnd: Bool) -> Answer {
        var isLater = false
        for g in groups.indices {
            if progress.groups[g].isDone { continue }
            let group = groups[g]
            if let size = group.size {
                guard isEnd else {
                    isLater = true
                    continue
                }
                guard size.holds(store.total) else { return .no }
                progress.groups[g].isDone = true
                continue
            }
            while progress.groups[g].segment < group.segments.count {
                let segment = group.segments[progress.groups[g].segment]
                if segment.endsBuffer && !isEnd { break }
                var matcher = Matcher()
                matcher.position = progress.groups[g].end
                matcher.total = store.total
                let from = max(store.base, progress.groups[g].floor, progress.groups[g].looked - segment.span)
                guard from <= store.base + store.bytes.count else { break }
                let part = store.bytes.span.extracting((from - store.base)..<store.bytes.count)
                let holds = matcher.holds(segment.steps, from: 0, in: part, base: from)
                if matcher.hitLimit { return .cannot }
                guard holds else {
                    progress.groups[g].looked = store.total
                    break
                }
                if group.isNegated { return .no }
                if progress.offset == nil { progress.offset = matcher.firstOffset }
                progress.groups[g].end = matcher.position
                progress.groups[g].looked = matcher.position
                progress.groups[g].segment += 1
            }
            if group.isNegated {
                if isEnd { progress.groups[g].isDone = true } else { isLater = true }
            } else if progress.groups[g].segment == group.segments.count {
                progress.groups[g].isDone = true
            } else if isEnd {
                return .no
            } else {
                isLater = true
            }
        }
        return isLater ? .later : .yes
    }

    private func whole(_ progress: inout TestProgress, _ store: borrowing StreamStore, _ isEnd: Bool) -> Answer {
        if let literal = requiredLiteral, !progress.literalSeen {
            let from = max(0, max(store.base, progress.literalLooked - literal.bytes.count + 1) - store.base)
            progress.literalSeen =
                LiteralSearch.find(literal.bytes, in: store.bytes.span, from: from, to: store.bytes.count, ignoresCase: literal.ignoresCase)
                != nil
            progress.literalLooked = store.total
            if !progress.literalSeen { return isEnd ? .no : .later }
        }
        guard store.isComplete else { return .cannot }
        // Looking again at every packet would cost the square of the length.
        guard isEnd || store.total <= 16 << 10 || store.total >= 2 * progress.wholeAt else { return .later }
        progress.wholeAt = store.total
        var bytes = store.bytes
        for transform in transforms { bytes = Transforms.apply(transform, bytes) }
        var matcher = Matcher()
        let holds = matcher.holds(steps, from: 0, in: bytes.span, base: 0)
        if matcher.hitLimit { return .cannot }
        if holds {
            if !isEnd && needsEnd { return .later }
            progress.offset = matcher.firstOffset ?? 0
            return .yes
        }
        return isEnd ? .no : .later
    }
}
