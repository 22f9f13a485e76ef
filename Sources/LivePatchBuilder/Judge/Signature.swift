// Which argument registers a function reads: what can be seen of a signature in stripped code.

import ELF
import MachineCode

struct Signature {
    /// Mask of the argument registers whose value at entry may be used, by function index.
    private let live: [UInt32]

    private static let arguments = Register.arguments.reduce(UInt32(0)) { $0 | $1.bit }
    /// What a call destroys: the argument registers, rax, r10, r11 (System V ABI, 3.2.1).
    private static let destroyedByCall = arguments | Register.rax.bit | Register(10).bit | Register(11).bit
    private static let rounds = 4

    init(_ image: CodeImage) {
        var live = [UInt32](repeating: 0, count: image.functions.count)
        // Callees first would be better; a few rounds let what they read reach those who only pass it on.
        for _ in 0..<Self.rounds {
            var changed = false
            for f in image.functions {
                let now = Self.liveAtEntry(f, image, live)
                if now != live[f.index] {
                    live[f.index] = now
                    changed = true
                }
            }
            if !changed { break }
        }
        self.live = live
    }

    func arguments(_ index: Int) -> UInt32 { live[index] }

    static func names(_ mask: UInt32) -> String {
        let names = Register.arguments.filter { mask & $0.bit != 0 }.map(\.description)
        return names.isEmpty ? "none" : names.joined(separator: " ")
    }

    /// Backward liveness over the function's own branches.
    private static func liveAtEntry(_ f: CodeFunction, _ image: CodeImage, _ known: [UInt32]) -> UInt32 {
        let code = f.instructions
        guard !code.isEmpty else { return 0 }
        var at: [Int: Int] = [:]
        for (n, i) in code.enumerated() { at[i.offset] = n }
        var liveIn = [UInt32](repeating: 0, count: code.count + 1)
        for _ in 0..<8 {
            var changed = false
            for n in stride(from: code.count - 1, through: 0, by: -1) {
                let i = code[n]
                var out: UInt32 = 0
                var use = i.reads & arguments
                var define = i.writes
                let target = i.branchTarget
                let inside = target.flatMap { at[$0] }
                func callee() -> UInt32 {
                    guard let target, let g = image.function(at: f.start + target), image.functions[g].start == f.start + target else {
                        return 0
                    }
                    return known[g]
                }
                switch i.flow {
                case .next: out = liveIn[n + 1]
                case .call:
                    use |= callee()
                    define |= destroyedByCall
                    out = liveIn[n + 1]
                case .conditional: out = liveIn[n + 1] | (inside.map { liveIn[$0] } ?? callee())
                case .jump: out = inside.map { liveIn[$0] } ?? callee()
                case .return, .stop: out = 0
                }
                let now = use | (out & ~define & arguments)
                if now != liveIn[n] {
                    liveIn[n] = now
                    changed = true
                }
            }
            if !changed { break }
        }
        return liveIn[0]
    }
}
