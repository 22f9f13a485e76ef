// What a mail client sends: the content of each part of a message, decoded, for rules on `file.data`.

import ELF

/// Commands by lines, messages behind DATA or in BDAT chunks; parts by their boundaries, base64 and quoted-printable undone.
struct MailReader {
    /// A line longer than this is cut: no server takes one.
    static let lineLimit = 64 << 10
    static let boundaryLimit = 16

    enum Event {
        /// A part is over: its content.
        case part([UInt8])
        /// A part is longer than is kept: what was told of it is its beginning.
        case tooLong
        /// What follows is encrypted.
        case encrypted
    }

    private enum Place { case commands, header, body, chunk(left: Int), offered, encrypted }
    /// The first byte of a TLS record that begins a handshake.
    private static let handshake: UInt8 = 22
    private enum Encoding { case none, base64, quoted }

    private let partLimit: Int
    private var place = Place.commands
    private var line: [UInt8] = []
    private var isLineCut = false
    private var field: [UInt8] = []
    private var boundaries: [[UInt8]] = []
    private var encoding = Encoding.none
    private var content: [UInt8] = []
    private var isTooLong = false
    /// Within BDAT a message goes on from chunk to chunk.
    private var inner = true
    private var lastChunk = false
    /// The line that a chunk ended in: the next one goes on with it.
    private var chunkLine: [UInt8] = []
    /// Base64 digits that wait for the rest of their four.
    private var digits: [UInt8] = []

    var keptBytes: Int { line.count + chunkLine.count + field.count + content.count }

    init(partLimit: Int) { self.partLimit = partLimit }

    mutating func feed(_ bytes: Span<UInt8>, _ tell: (Event) -> Void) {
        for i in bytes.indices {
            if case .encrypted = place { return }
            let c = bytes[i]
            // The server may have declined, and a client may ask only to hide what it says next.
            if case .offered = place {
                place = c == Self.handshake ? .encrypted : .commands
                if c == Self.handshake { return tell(.encrypted) }
            }
            if case .chunk(let left) = place {
                // Chunks have a length; lines within them are read as those of DATA, without dots.
                place = .chunk(left: left - 1)
                take(c, tell)
                if left <= 1 {
                    if lastChunk {
                        endMessage(tell)
                    } else {
                        chunkLine = line
                    }
                    line = []
                    place = .commands
                }
                continue
            }
            take(c, tell)
        }
    }

    private mutating func take(_ c: UInt8, _ tell: (Event) -> Void) {
        if c != 10 {
            if line.count < Self.lineLimit { line.append(c) } else { isLineCut = true }
            return
        }
        if line.last == 13 { line.removeLast() }
        let whole = line
        line.removeAll(keepingCapacity: true)
        if isLineCut { tell(.tooLong) }
        isLineCut = false
        switch place {
        case .commands: command(whole, tell)
        case .header, .body:
            if whole == [UInt8(ascii: ".")] {
                endMessage(tell)
                place = .commands
            } else {
                message(whole.first == UInt8(ascii: ".") ? Array(whole.dropFirst()) : whole, tell)
            }
        case .chunk: message(whole, tell)
        case .offered, .encrypted: break
        }
    }

    private mutating func command(_ text: [UInt8], _ tell: (Event) -> Void) {
        func begins(_ word: StaticString) -> Bool {
            text.count >= word.utf8CodeUnitCount && LiteralSearch.isWord(word, text.span.extracting(0..<word.utf8CodeUnitCount))
        }
        if begins("data"), text.count == 4 || text[4] == 32 {
            startMessage()
            place = .header
        } else if begins("bdat ") {
            let words = text.split(separator: 32)
            guard words.count >= 2, let count = Int(String(decoding: words[1], as: UTF8.self)), count >= 0, count < 1 << 40 else { return }
            if content.isEmpty, boundaries.isEmpty, field.isEmpty, chunkLine.isEmpty { startMessage() }
            lastChunk = words.count > 2
            if count > 0 {
                place = .chunk(left: count)
                line = chunkLine
                chunkLine = []
            } else if lastChunk {
                endMessage(tell)
            }
        } else if begins("starttls") {
            place = .offered
        }
    }

    // MARK: the message

    private mutating func startMessage() {
        boundaries = []
        startPart()
    }

    private mutating func startPart() {
        inner = true
        field = []
        encoding = .none
        content = []
        digits = []
        isTooLong = false
    }

    private mutating func endPart(_ tell: (Event) -> Void) {
        // What is left without its padding is content too.
        if encoding == .base64, !digits.isEmpty { content += Transforms.base64(digits.span) }
        digits = []
        if !content.isEmpty { tell(.part(content)) }
        if isTooLong { tell(.tooLong) }
        content = []
    }

    private mutating func endMessage(_ tell: (Event) -> Void) {
        if !line.isEmpty {
            let rest = line
            line = []
            message(rest, tell)
        }
        endPart(tell)
        boundaries = []
        field = []
    }

    private mutating func message(_ text: [UInt8], _ tell: (Event) -> Void) {
        if text.starts(with: [45, 45]), boundaries.contains(where: { text.dropFirst(2).starts(with: $0) }) {
            endPart(tell)
            startPart()
            return
        }
        guard inner else { return add(text) }
        if let first = text.first, first == 32 || first == 9, !field.isEmpty {
            if field.count < Self.lineLimit { field += text }
            return
        }
        header()
        field = text
        if text.isEmpty { inner = false }
    }

    private mutating func header() {
        let all = field
        guard let colon = all.firstIndex(of: UInt8(ascii: ":")) else { return }
        let name = all.span.extracting(0..<colon), value = Array(all[(colon + 1)...])
        if LiteralSearch.isWord("content-type", name) {
            if let boundary = Arguments.parameter("boundary", in: value), !boundary.isEmpty, boundaries.count < Self.boundaryLimit {
                boundaries.append(boundary)
            }
        } else if LiteralSearch.isWord("content-transfer-encoding", name) {
            func has(_ word: String) -> Bool {
                LiteralSearch.find(Array(word.utf8), in: value.span, from: 0, to: value.count, ignoresCase: true) != nil
            }
            encoding = has("base64") ? .base64 : has("quoted-printable") ? .quoted : .none
        }
    }

    private mutating func add(_ text: [UInt8]) {
        guard content.count + text.count + 2 <= partLimit else {
            isTooLong = true
            return
        }
        switch encoding {
        case .none: content += text + [13, 10]
        case .base64:
            digits += text.filter { $0 > 32 }
            let whole = digits.count & ~3
            // Padding ends four digits, not the part: readers of mail go on behind it.
            var from = 0
            for at in stride(from: 0, to: whole, by: 4) where digits[at + 3] == UInt8(ascii: "=") || at + 4 == whole {
                content += Transforms.base64(digits.span.extracting(from..<(at + 4)))
                from = at + 4
            }
            digits.removeFirst(whole)
        case .quoted:
            var i = 0
            while i < text.count {
                if text[i] == UInt8(ascii: "=") {
                    guard i + 2 < text.count, let h = SuricataText.hexDigit(text[i + 1]), let l = SuricataText.hexDigit(text[i + 2]) else {
                        // A soft line break, or nothing that means anything.
                        if i + 1 == text.count { return }
                        content.append(text[i])
                        i += 1
                        continue
                    }
                    content.append(h << 4 | l)
                    i += 3
                } else {
                    content.append(text[i])
                    i += 1
                }
            }
            content += [13, 10]
        }
    }
}
