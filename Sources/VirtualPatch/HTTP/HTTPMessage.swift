// One request or response while it passes: its head's buffers, its body's views, and the rules that still wait.

/// A rule whose answer the body decides.
struct PendingRule {
    let rule: CompiledRule
    /// By view, then by slot.
    var progress: [[TestProgress]]
    var isDone = false
    /// On a stream: bytes were gone when it was chosen that may have held a part of what it looks for.
    var isBlind = false

    init(rule: CompiledRule, progress: [[TestProgress]]) {
        self.rule = rule
        self.progress = progress
    }
}

final class HTTPMessage {
    let isRequest: Bool
    var number = 0
    var buffers = MessageBuffers()
    /// The body as sent, its parameters decoded, decoded once more: the latter two for forms alone.
    var bodies = [StreamStore()]
    var decoders: [StreamDecoder] = []
    var pending: [PendingRule] = []
    var hasHead = false
    /// Headers in order, `name: value` and a line end each, in `buffers`.
    private(set) var fields: [Field] = []
    private(set) var fieldBlock = 0..<0
    /// Cookies stand behind the block: `http.header` is without them.
    private var late: [(index: Int, line: [UInt8], nameCount: Int)] = []
    var rawHeader: [UInt8] = []
    var line: [UInt8] = []
    var method: [UInt8] = []
    var uri: [UInt8] = []
    var path: [UInt8] = []
    var query: [UInt8] = []
    var version: [UInt8] = []
    var host: [UInt8] = []
    var status: [UInt8] = []
    var statusMessage: [UInt8] = []
    var contentType: [UInt8]? {
        didSet {
            isForm = typeContains("x-www-form-urlencoded")
            isMultipart = typeContains("multipart/form-data")
            isJSON = typeContains("json")
        }
    }
    private(set) var isForm = false
    private(set) var isMultipart = false
    private(set) var isJSON = false
    /// The body's first byte that is no space.
    var opening: UInt8?
    /// The head says that a body follows, or does not say that none does.
    var mayHaveBody = true
    /// Parameters of the body by view, parsed when first asked for.
    var arguments: [Arguments]?
    /// Rules that a literal of the body pointed to, each considered once.
    var considered: Set<Int> = []
    /// Rules that a literal of the flow's stream pointed to.
    var seen: [Int] = []

    init(isRequest: Bool) { self.isRequest = isRequest }

    func clear() {
        buffers.clear()
        if bodies.count > 1 { bodies.removeLast(bodies.count - 1) }
        bodies[0].clear()
        decoders.removeAll()
        pending.removeAll(keepingCapacity: true)
        hasHead = false
        fields.removeAll(keepingCapacity: true)
        late.removeAll(keepingCapacity: true)
        fieldBlock = 0..<0
        rawHeader.removeAll(keepingCapacity: true)
        line.removeAll(keepingCapacity: true)
        method.removeAll(keepingCapacity: true)
        uri.removeAll(keepingCapacity: true)
        path.removeAll(keepingCapacity: true)
        query.removeAll(keepingCapacity: true)
        version.removeAll(keepingCapacity: true)
        host.removeAll(keepingCapacity: true)
        status.removeAll(keepingCapacity: true)
        statusMessage.removeAll(keepingCapacity: true)
        contentType = nil
        opening = nil
        mayHaveBody = true
        arguments = nil
        considered.removeAll(keepingCapacity: true)
    }

    /// Bytes kept for it.
    var keptBytes: Int { bodies.reduce(0) { $0 + $1.bytes.count } + buffers.bytes.count + rawHeader.count }

    struct Field {
        var name: Range<Int>
        var value: Range<Int>
    }

    func add(name: Span<UInt8>, value: Span<UInt8>) {
        if Self.isName(isRequest ? "cookie" : "set-cookie", name) {
            var line = name.copied
            line += [58, 32]
            line.append(value)
            late.append((fields.count, line, name.count))
            fields.append(Field(name: 0..<0, value: 0..<0))
            return
        }
        let start = buffers.bytes.count
        if fieldBlock.isEmpty { fieldBlock = start..<start }
        fields.append(buffers.appendField(name, value))
        fieldBlock = fieldBlock.lowerBound..<buffers.bytes.count
    }

    /// Servers take what ends in `/.` or `/..` for a folder, and its path ends in a slash.
    func closeDotSegment() {
        let raw = Transforms.percentDecoded(Array(uri[RequestBuffers.rawPath(uri)]).span, plusIsSpace: false)
        guard let slash = raw.lastIndex(of: UInt8(ascii: "/")), path.last != UInt8(ascii: "/") else { return }
        let last = raw[(slash + 1)...]
        if last.elementsEqual([46]) || last.elementsEqual([46, 46]) { path.append(UInt8(ascii: "/")) }
    }

    /// All headers came.
    func settleFields() {
        for item in late {
            let line = buffers.append(item.line.span)
            let colon = line.lowerBound + item.nameCount
            fields[item.index] = Field(name: line.lowerBound..<colon, value: colon + 2..<line.upperBound)
        }
        late.removeAll(keepingCapacity: true)
    }

    /// Where the first header of this name has its value; `name` in small letters.
    func header(_ name: StaticString) -> Range<Int>? {
        let bytes = buffers.bytes
        for field in fields where field.name.count == name.utf8CodeUnitCount && Self.isName(name, bytes.span.extracting(field.name)) {
            return field.value
        }
        return nil
    }

    private static func isName(_ name: StaticString, _ bytes: Span<UInt8>) -> Bool {
        LiteralSearch.isWord(name, bytes)
    }

    private func typeContains(_ word: String) -> Bool {
        guard let type = contentType else { return false }
        return LiteralSearch.find(Array(word.utf8), in: type.span, from: 0, to: type.count, ignoresCase: true) != nil
    }

    /// Whether the body's content type, or its first byte, say that it holds parameters.
    var bodyHasArguments: Bool {
        isForm || contentType == nil || isMultipart || isJSON || opensLikeJSON
    }
    private var opensLikeJSON: Bool { opening == UInt8(ascii: "{") || opening == UInt8(ascii: "[") }

    /// Parameters of the body on a view: decoded as the content type says, and on the last view once more.
    func bodyArguments(view: Int) -> Arguments {
        if let arguments { return arguments[min(view, arguments.count - 1)] }
        var first = Arguments()
        let body = bodies[0].bytes
        if isMultipart {
            first = .multipart(body.span, contentType: contentType ?? [])
        } else if isJSON || (!isForm && opensLikeJSON) {
            first = .json(body.span)
        } else if isForm || contentType == nil {
            first = .form(body.span)
        }
        var again = first
        var differs = false
        for i in again.items.indices {
            let item = again.items[i]
            if Transforms.isEncoded(item.value.span, plusIsSpace: false) || Transforms.isEncoded(item.name.span, plusIsSpace: false) {
                again.items[i].name = Transforms.percentDecoded(item.name.span, plusIsSpace: true)
                again.items[i].value = Transforms.percentDecoded(item.value.span, plusIsSpace: true)
                differs = true
            }
        }
        arguments = differs ? [first, first, again] : [first]
        return bodyArguments(view: view)
    }
}

/// Percent decoding of a stream: an escape may be cut anywhere.
struct StreamDecoder {
    private var held: [UInt8] = []

    mutating func decode(_ bytes: Span<UInt8>) -> [UInt8] {
        var all = held
        all.append(bytes)
        held = []
        // At most the last two bytes can be the beginning of an escape.
        if let percent = all.suffix(2).lastIndex(of: UInt8(ascii: "%")) {
            held = Array(all[percent...])
            all.removeSubrange(percent...)
        }
        return Transforms.percentDecoded(all.span, plusIsSpace: true)
    }

    mutating func finish() -> [UInt8] {
        defer { held = [] }
        return held
    }
}
