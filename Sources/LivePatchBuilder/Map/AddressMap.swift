// Which address of the old build a data address of the new build corresponds to, and on what evidence.

import ELF

/// How a reference's target in the old build was found. Raw values appear in manifests.
enum Evidence: String, Sendable {
    case code = "matched code"
    case plt = "PLT entry of the same symbol"
    case got = "GOT slot of the same symbol"
    case imported = "symbol of another object, found in the process"
    case symbol = "data symbol"
    case votes = "votes of unchanged functions"
    case place = "same place between proved neighbours, used alike"
    case relocation = "relocation in corresponding data"
    case content = "same read-only content"
    case interval = "same read-only content between proved neighbours"
    case copied = "new read-only data"
    case table = "jump table"
    case fresh = "new writable data"
    case moved = "code of the patch"
}

/// Votes of unchanged code about where data went, new address -> old address -> functions that say so.
struct AddressMap: Sendable {
    private(set) var votes: [LinkAddress: [LinkAddress: Set<Int>]] = [:]
    /// Old addresses that somebody mapped a new one to.
    private(set) var mappedOld: Set<LinkAddress> = []
    /// Unanimously voted new addresses, sorted, with their old address: neighbours for interpolation.
    private(set) var agreed: [(new: LinkAddress, old: LinkAddress)] = []
    private(set) var relocated: [LinkAddress: LinkAddress] = [:]

    /// Addresses about which unchanged code disagrees, now or before those in the minority lost their votes.
    private(set) var disputed: Set<LinkAddress> = []

    /// A map without votes that remembers what was disputed.
    func emptied() -> AddressMap {
        var map = AddressMap()
        map.disputed = disputed
        return map
    }

    mutating func vote(_ new: LinkAddress, is old: LinkAddress, by function: Int) {
        votes[new, default: [:]][old, default: []].insert(function)
    }

    mutating func prove(_ new: LinkAddress, is old: LinkAddress) { relocated[new] = old }

    /// `mayDispute`: whether it matters that one old address became two, or two became one.
    mutating func close(_ mayDispute: (LinkAddress) -> Bool) {
        var newOf: [LinkAddress: Set<LinkAddress>] = [:]
        for (new, candidates) in votes where mayDispute(new) {
            if candidates.count > 1 { disputed.insert(new) }
            for old in candidates.keys { newOf[old, default: []].insert(new) }
        }
        for news in newOf.values where news.count > 1 { disputed.formUnion(news) }
        for (new, old) in relocated where newOf[old].map({ $0 != [new] }) ?? false { relocated[new] = nil }
        agreed = votes.compactMap { new, candidates in
            candidates.count == 1 && !disputed.contains(new) ? candidates.first.map { (new, $0.key) } : nil
        }.sorted { $0.new < $1.new }
        mappedOld = Set(votes.values.flatMap(\.keys)).union(relocated.values)
    }

    enum Answer: Equatable {
        case one(LinkAddress, functions: Int)
        case conflict([LinkAddress])
        case none
    }

    func answer(_ new: LinkAddress) -> Answer {
        if disputed.contains(new) { return .conflict(votes[new]?.keys.sorted() ?? []) }
        guard let candidates = votes[new], let best = candidates.max(by: { ($0.value.count, $1.key) < ($1.value.count, $0.key) }) else {
            return .none
        }
        return candidates.count == 1 ? .one(best.key, functions: best.value.count) : .conflict(candidates.keys.sorted())
    }

    /// The old address with the most votes, whatever speaks against it.
    func majority(_ new: LinkAddress) -> LinkAddress? {
        votes[new]?.max { ($0.value.count, $1.key) < ($1.value.count, $0.key) }?.key
    }

    /// The agreed neighbours on both sides of `new`.
    func neighbours(_ new: LinkAddress) -> (below: (new: LinkAddress, old: LinkAddress)?, above: (new: LinkAddress, old: LinkAddress)?) {
        var low = 0, high = agreed.count
        while low < high {
            let middle = (low + high) / 2
            if agreed[middle].new <= new { low = middle + 1 } else { high = middle }
        }
        return (low > 0 ? agreed[low - 1] : nil, low < agreed.count ? agreed[low] : nil)
    }

    /// The nearest agreed neighbours that at least two functions vouch for.
    func strongNeighbours(
        _ new: LinkAddress
    ) -> (below: (new: LinkAddress, old: LinkAddress)?, above: (new: LinkAddress, old: LinkAddress)?) {
        var low = 0, high = agreed.count
        while low < high {
            let middle = (low + high) / 2
            if agreed[middle].new <= new { low = middle + 1 } else { high = middle }
        }
        func isStrong(_ n: (new: LinkAddress, old: LinkAddress)) -> Bool { (votes[n.new]?[n.old]?.count ?? 0) >= 2 && n.new != new }
        return (agreed[..<low].last(where: isStrong), agreed[low...].first(where: isStrong))
    }
}
