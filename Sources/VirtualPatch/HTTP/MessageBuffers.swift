// The named parts of one message's head in one piece of memory, on up to three views.

/// One header, parameter or query.
struct Instance {
    var buffer: Buffer
    var view: Int
    var name: Range<Int>
    var value: Range<Int>
}

/// Reused from message to message: clearing keeps the memory.
struct MessageBuffers {
    static let views = 3
    /// Parameters and headers of one message; more make it uninspectable.
    static let instanceLimit = 4096

    private(set) var bytes: [UInt8] = []
    private var ranges = ContiguousArray<Range<Int>?>(repeating: nil, count: Buffer.count * views)
    private(set) var instances: [Instance] = []
    private(set) var hasTooMany = false
    /// Views that differ from the ones before.
    var viewCount = 1

    mutating func clear() {
        bytes.removeAll(keepingCapacity: bytes.capacity < 1 << 16)
        for i in ranges.indices { ranges[i] = nil }
        instances.removeAll(keepingCapacity: instances.capacity < 1 << 10)
        hasTooMany = false
        viewCount = 1
    }

    mutating func set(_ buffer: Buffer, view: Int = 0, _ content: Span<UInt8>) { self[buffer, view] = append(content) }
    mutating func set(_ buffer: Buffer, view: Int = 0, _ content: [UInt8]) { set(buffer, view: view, content.span) }

    @discardableResult
    mutating func append(_ content: Span<UInt8>) -> Range<Int> {
        let start = bytes.count
        bytes.append(content)
        return start..<bytes.count
    }

    /// `name: value` and a line end.
    mutating func appendField(_ name: Span<UInt8>, _ value: Span<UInt8>) -> HTTPMessage.Field {
        let n = append(name)
        bytes.append(58)
        bytes.append(32)
        let v = append(value)
        bytes.append(13)
        bytes.append(10)
        return HTTPMessage.Field(name: n, value: v)
    }

    mutating func overflow() { hasTooMany = true }

    mutating func add(_ buffer: Buffer, view: Int = 0, name: Range<Int>, value: Range<Int>) {
        guard instances.count < Self.instanceLimit else {
            hasTooMany = true
            return
        }
        instances.append(Instance(buffer: buffer, view: view, name: name, value: value))
    }

    /// Where the buffer's bytes are on this view, or on the nearest earlier one.
    subscript(buffer: Buffer, view: Int) -> Range<Int>? {
        get {
            var v = min(view, Self.views - 1)
            while v > 0 {
                if let range = ranges[v * Buffer.count + Int(buffer.rawValue)] { return range }
                v -= 1
            }
            return ranges[Int(buffer.rawValue)]
        }
        set { ranges[view * Buffer.count + Int(buffer.rawValue)] = newValue }
    }

    func copy(_ range: Range<Int>) -> [UInt8] { Array(bytes[range]) }
}
