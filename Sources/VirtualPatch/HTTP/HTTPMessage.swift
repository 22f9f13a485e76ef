// One request or response while it passes: its head's buffers, its body's views, and the rules that still wait.

/// A rule whose answer the body decides.
struct PendingRule {
    let rule: CompiledRule
    /// By view, then by slot.
    var progress: [[TestProgress]]
    var isDone = false
    /// On a stream: from where on it is looked at.
    var since = 0

    init(rule: CompiledRule, progress: [[TestProgress]], since: Int = 0) {
        self.rule = rule
        self.progress = progress
        self.since = since
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
    var headers: [(name: [UInt8], value: [UInt8])] = []
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
    var contentType: [UInt8]?
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
        headers.removeAll(keepingCapacity: true)
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
        arguments = nil
        considered.removeAll(keepingCapacity: true)
    }

    func header(_ name: StaticString) -> [UInt8]? {
        let wanted = "\(name)".utf8
        return headers.first { $0.name.count == wanted.count && zip($0.name, wanted).allSatisfy { LiteralSearch.lower($0) == $1 } }?.value
    }

    func typeContains(_ word: String) -> Bool {
        guard let type = contentType else { return false }
        return LiteralSearch.find(Array(word.utf8), in: type.span, from: 0, to: type.count, ignoresCase: true) != nil
    }

    var isForm: Bool { typeContains("x-www-form-urlencoded") }

    /// Parameters of the body on a view: decoded as the content type says, and on the last view once more.
    func bodyArguments(view: Int) -> Arguments {
        if let arguments { return arguments[min(view, arguments.count - 1)] }
        var first = Arguments()
        let body = bodies[0].bytes
        let opening = body.first { !Transforms.isSpace($0) }
        if typeContains("multipart/form-data") {
            first = .multipart(body.span, contentType: contentType ?? [])
        } else if typeContains("json") || (!isForm && (opening == UInt8(ascii: "{") || opening == UInt8(ascii: "["))) {
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
