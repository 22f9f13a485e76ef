// What a patch says about itself in words: for which build, from which packages, how sure its builder was, and why.

/// How far the builder could prove a patch safe.
public enum BuildVerdict: String, Codable, Sendable { case pass, review, refuse }

/// One thing that the builder noticed and could not settle by itself.
public struct Finding: Codable, Hashable, Sendable {
    /// Stable, kebab-case, documented in `docs/codes.md`.
    public var code: String
    /// The function, section or symbol it is about.
    public var function: String
    /// What was seen, in one sentence.
    public var sentence: String
    /// What would settle it.
    public var remedy: String
    public var verdict: BuildVerdict

    public init(_ code: String, _ function: String, _ sentence: String, remedy: String, verdict: BuildVerdict) {
        self.code = code
        self.function = function
        self.sentence = sentence
        self.remedy = remedy
        self.verdict = verdict
    }

    /// How an operator names it on the command line.
    public var key: String { "\(code):\(function)" }
}

/// One function of the patch as a person reads about it. Order and count match the replacement table.
public struct ReplacedFunction: Codable, Hashable, Sendable {
    public var name: String
    /// Link address and size in the old build; zero for functions that only the new build has.
    public var oldAddress: UInt64
    public var oldSize: Int
    public var newSize: Int
    /// A jump is written at the old entry. False: reached only from other functions of the patch.
    public var isHooked: Bool
    /// Why it is in the patch: "changed: 3 of 41 instructions", "added", "cold part of …".
    public var why: String

    public init(name: String, oldAddress: UInt64, oldSize: Int, newSize: Int, isHooked: Bool, why: String) {
        self.name = name
        self.oldAddress = oldAddress
        self.oldSize = oldSize
        self.newSize = newSize
        self.isHooked = isHooked
        self.why = why
    }
}

/// Whether the functions of a patch must switch together.
public struct Consistency: Codable, Hashable, Sendable {
    public enum Mode: String, Codable, Sendable {
        /// Each call is old or new as a whole, whatever other calls are under way: a thread may finish old code while others
        /// run new code.
        case perCall = "per-call"
        /// No thread may be in any of the old functions when the new ones take over.
        case together
    }
    public var mode: Mode
    /// In one sentence, for people.
    public var because: String

    public init(_ mode: Mode, because: String) {
        self.mode = mode
        self.because = because
    }
}

public struct Manifest: Codable, Equatable, Sendable {
    public static let schema = "fother.patch/1"
    public static let bytesMax = 8 << 20

    public var schema = Manifest.schema
    /// Name and version of the tool that built the patch.
    public var tool: String
    /// The build that is patched, and the build the new code comes from.
    public var buildID: String
    public var newBuildID: String
    /// SHA-256 of both input files.
    public var oldSHA256: String
    public var newSHA256: String
    /// Path of the object inside its package, or its file name.
    public var object: String
    public var package: String?
    public var oldVersion: String?
    public var newVersion: String?
    /// CVE ids that the changelog names between the two versions, sorted.
    public var cves: [String]
    /// False when the changelog does not reach back to the old version: then it may name too few. Nil without a changelog.
    public var cvesAreComplete: Bool?
    public var verdict: BuildVerdict
    /// What the verdict rests on: `binary` means the two linked files and nothing else.
    public var evidence: [String]
    public var findings: [Finding]
    public var functions: [ReplacedFunction]
    public var consistency: Consistency
    /// Exceptions may pass through the new code: it must not run where they would not find their way.
    public var needsUnwinder: Bool?
    /// References of the new code by how their target was proved: evidence -> count.
    public var references: [String: Int]

    public init(
        tool: String, buildID: String, newBuildID: String, oldSHA256: String, newSHA256: String, object: String
    ) {
        self.tool = tool
        self.buildID = buildID
        self.newBuildID = newBuildID
        self.oldSHA256 = oldSHA256
        self.newSHA256 = newSHA256
        self.object = object
        cves = []
        verdict = .refuse
        evidence = []
        findings = []
        functions = []
        consistency = Consistency(.together, because: "nothing was proved about it.")
        references = [:]
    }
}
