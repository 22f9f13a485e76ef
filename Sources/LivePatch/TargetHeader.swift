// The header at the start of a patch's mapping in a target: state lives there, not in a record on disk. Whoever reads it
// reads hostile input: the process may have written it. Format: docs/patch-format.md, "In the target".

import ELF

/// A finding that an operator accepted by name, and why.
public struct Acceptance: Hashable, Codable, Sendable {
    /// `CODE:FUNCTION`.
    public var finding: String
    public var because: String

    public init(finding: String, because: String) {
        self.finding = finding
        self.because = because
    }
}

public struct TargetHeader: Equatable, Sendable {
    /// Where in its life the patch is. Written as one aligned 32-bit word.
    public enum Phase: UInt32, Sendable {
        /// Mapped; its divisions may not be written yet. No site has been touched.
        case prepared = 1
        /// Complete. Which code runs is for the sites and the commit byte to say.
        case complete = 2
    }

    public struct Site: Equatable, Sendable {
        public var address: RuntimeAddress
        public var old: [UInt8]
        public var new: [UInt8]

        public init(address: RuntimeAddress, old: [UInt8], new: [UInt8]) {
            self.address = address
            self.old = old
            self.new = new
        }
    }

    public static let magic: [UInt8] = Array("FOTHERLP".utf8)
    public static let version: UInt32 = 2
    public static let phaseOffset = 12
    /// One byte, 1 when the new code runs: the only store that turns a patch on or off.
    public static let commitOffset = 176
    /// One byte, 1 when no thread can be in old code any more. It means something only while the patch is committed.
    public static let effectiveOffset = 177
    public static let sitesMax = 65_536
    public static let acceptancesMaxBytes = 3072

    static let fixedSize = 256
    static let siteSize = 32

    public var phase: Phase
    public var isCommitted: Bool
    public var isEffective = false
    public var patch: PatchID
    public var buildID: BuildID
    public var bias: LoadBias
    /// Bytes of the whole mapping.
    public var size: Int
    /// SHA-256 of the text division as linked for this process.
    public var codeHash: [UInt8]
    public var sites: [Site]
    public var acceptances: [Acceptance]

    public init(
        phase: Phase, isCommitted: Bool = false, patch: PatchID, buildID: BuildID, bias: LoadBias, size: Int, codeHash: [UInt8],
        sites: [Site],
        acceptances: [Acceptance] = []
    ) {
        self.phase = phase
        self.isCommitted = isCommitted
        self.patch = patch
        self.buildID = buildID
        self.bias = bias
        self.size = size
        self.codeHash = codeHash
        self.sites = sites
        self.acceptances = acceptances
    }

    /// Bytes a header with so many sites may need, acceptances included.
    public static func size(sites: Int) -> Int { fixedSize + sites * siteSize + acceptancesMaxBytes }

    /// The bytes at the start of the mapping. Throws `too-many-acceptances` when the reasons do not fit.
    public func encode() throws(Failure) -> [UInt8] {
        var out = Self.magic
        out.append32(Self.version)
        out.append32(phase.rawValue)
        out.append32(UInt32(sites.count))
        var text: [UInt8] = []
        for a in acceptances { text += Array(a.finding.utf8) + [0] + Array(a.because.utf8) + [0] }
        guard text.count <= Self.acceptancesMaxBytes else {
            throw Failure(
                "too-many-acceptances", "the accepted findings and reasons exceed \(Self.acceptancesMaxBytes) bytes.",
                remedy: "Shorten the reasons given with --because.")
        }
        out.append32(UInt32(text.count))
        out.append64(bias.value)
        out.append64(UInt64(size))
        out += patch.bytes
        out += codeHash
        out.append32(UInt32(buildID.bytes.count))
        out.append32(0)
        out += buildID.bytes
        out += [UInt8](repeating: 0, count: Self.fixedSize - out.count)
        out[Self.commitOffset] = isCommitted ? 1 : 0
        out[Self.effectiveOffset] = isEffective ? 1 : 0
        for s in sites {
            out.append64(s.address.value)
            out.append(UInt8(s.old.count))
            out.append(UInt8(s.new.count))
            out += [UInt8](repeating: 0, count: 6)
            out += s.old + [UInt8](repeating: 0, count: 8 - s.old.count)
            out += s.new + [UInt8](repeating: 0, count: 8 - s.new.count)
        }
        return out + text
    }

    /// Reads what claims to be a header. Throws `header-malformed`; never traps, whatever the bytes are.
    public init(parsing bytes: [UInt8], at base: RuntimeAddress) throws(Failure) {
        let view = Bytes(bytes, name: "patch header at \(base)")
        func malformed(_ sentence: String, _ offset: Int) -> Failure {
            Failure("header-malformed", sentence, at: "\(view.name)+\(hex(offset))")
        }
        guard view.slice(0, 8).map(Array.init) == Self.magic else { throw malformed("no patch header is here.", 0) }
        guard view.u32(8) == Self.version else {
            throw malformed("version \(view.u32(8) ?? 0) is unknown to this tool.", 8)
        }
        guard let phase = Phase(rawValue: view.u32(12) ?? 0) else { throw malformed("the phase is unknown.", 12) }
        guard let commit = view.u8(Self.commitOffset), commit <= 1 else {
            throw malformed("the commit byte is neither 0 nor 1.", Self.commitOffset)
        }
        guard let effective = view.u8(Self.effectiveOffset), effective <= 1 else {
            throw malformed("the effective byte is neither 0 nor 1.", Self.effectiveOffset)
        }
        let count = Int(view.u32(16) ?? 0), textSize = Int(view.u32(20) ?? 0)
        guard count <= Self.sitesMax, textSize <= Self.acceptancesMaxBytes else { throw malformed("a count exceeds its limit.", 16) }
        guard let size = Int(exactly: view.u64(32) ?? 0), size > 0, size < 1 << 31, size % PatchLayout.page == 0 else {
            throw malformed("the size of the mapping makes no sense.", 32)
        }
        guard let id = PatchID(bytes: Array(view.slice(40, 32) ?? [])), let hash = view.slice(72, 32),
            let idSize = view.u32(104), idSize <= 64, let buildID = BuildID(bytes: Array(view.slice(112, Int(idSize)) ?? []))
        else { throw malformed("the identities are not complete.", 40) }
        var sites: [Site] = []
        for i in 0..<count {
            let at = Self.fixedSize + i * Self.siteSize
            guard let address = view.u64(at), let old = view.u8(at + 8), let new = view.u8(at + 9), old <= 8, new <= 8,
                let oldBytes = view.slice(at + 16, Int(old)), let newBytes = view.slice(at + 24, Int(new))
            else { throw malformed("site \(i) is not complete.", at) }
            sites.append(Site(address: RuntimeAddress(address), old: Array(oldBytes), new: Array(newBytes)))
        }
        let textAt = Self.fixedSize + count * Self.siteSize
        guard let text = view.slice(textAt, textSize) else { throw malformed("the accepted findings are cut off.", textAt) }
        let words = text.split(separator: 0, omittingEmptySubsequences: false).map { String(decoding: $0, as: UTF8.self) }
        self.phase = phase
        isCommitted = commit == 1
        isEffective = effective == 1
        patch = id
        self.buildID = buildID
        bias = LoadBias(view.u64(24) ?? 0)
        self.size = size
        codeHash = Array(hash)
        self.sites = sites
        acceptances = stride(from: 0, to: words.count - 2, by: 2).map { Acceptance(finding: words[$0], because: words[$0 + 1]) }
    }
}
