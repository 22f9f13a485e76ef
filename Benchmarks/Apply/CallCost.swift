// What a call of a patched function costs: unpatched, patched, and with the jump in place but not committed, in turn.

import ELF
import Foundation
import LivePatch
import LivePatchApplier
import ProcessControl

struct CallCostRow: Codable {
    var state: String
    var rounds: Int
    var nanoseconds: Spread
    /// Median of the differences from the unpatched call of the same round.
    var differenceNanoseconds: Double
}

enum CallCost {
    /// Failure: `bench`, when a transition does not do what it should.
    static func measure(_ fixture: BenchFixture, rounds: Int) throws -> [CallCostRow] {
        let target = try BenchTarget(fixture, threads: 1), applier = Applier(Tracer())
        var values: [[Double]] = [[], [], []]
        // From now on the mapping is there, and stays where it is.
        guard case .patched = applier.apply(fixture.patch, to: target.id), case .reverted = applier.revert(fixture.patch, in: target.id)
        else { throw Failure("bench", "apply or revert did not do what it should.") }
        let commit = try applier.plan(fixture.patch, for: target.id).get().commit
        for _ in 0..<rounds {
            values[0].append(try target.callCost())
            guard case .patched = applier.apply(fixture.patch, to: target.id) else { throw Failure("bench", "apply did not patch.") }
            values[1].append(try target.callCost())
            try target.memory.write([0], at: commit)
            values[2].append(try target.callCost())
            guard case .reverted = applier.revert(fixture.patch, in: target.id) else { throw Failure("bench", "revert did not.") }
        }
        return zip(["unpatched", "patched", "jump in place, not committed"], values).map { state, costs in
            CallCostRow(
                state: state, rounds: rounds, nanoseconds: Spread(costs),
                differenceNanoseconds: Spread(zip(costs, values[0]).map { $0 - $1 }).median)
        }
    }
}
