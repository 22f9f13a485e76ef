// swift-tools-version: 6.2
import PackageDescription

// One package, one executable. A target is a room; `RoomsTests` holds the table of who may import whom, and why.

let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

/// A room and its tests share the settings; nothing is exempt.
func room(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: strict)
}
func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: strict)
}
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")

let package = Package(
    name: "fother",
    products: [.executable(name: "fother", targets: ["fother"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    ],
    targets: [
        // floor 0
        .target(name: "CLinux"),
        .systemLibrary(name: "CZydis"),
        .systemLibrary(name: "CVectorscan", pkgConfig: "libhs"),
        .systemLibrary(name: "CPCRE2", pkgConfig: "libpcre2-8"),
        .target(name: "CHTP", linkerSettings: [.linkedLibrary("htp")]),
        .target(name: "CInjection"),
        // floor 1
        room("ELF", []),
        room("MachineCode", ["CZydis", "ELF"]),
        room("ProcessControl", ["CLinux", "ELF"]),
        room("Advisories", ["ELF"]),
        // floor 2
        room("LivePatch", ["ELF", "MachineCode", crypto]),
        room("VirtualPatch", ["CVectorscan", "CPCRE2", "CHTP", "CInjection", "ELF", .product(name: "Yams", package: "Yams")]),
        // floor 3
        room("LivePatchBuilder", ["ELF", "MachineCode", "ProcessControl", "Advisories", "LivePatch"]),
        room("Interception", ["ELF", "VirtualPatch"]),
        room("LivePatchApplier", ["ELF", "MachineCode", "LivePatch", "ProcessControl"]),
        // floor 5
        .executableTarget(
            name: "fother",
            dependencies: [
                "ELF", "MachineCode", "ProcessControl", "Advisories", "LivePatch", "LivePatchBuilder",
                "LivePatchApplier", "VirtualPatch", "Interception",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),
        tests("RoomsTests", []),
        tests("ProcessControlTests", ["ELF", "ProcessControl"]),
        tests("AdvisoriesTests", ["Advisories"]),
        tests("FuzzTests", ["ELF", "ProcessControl", "LivePatch", "LivePatchBuilder", "FuzzTargets"]),
        .testTarget(
            name: "LivePatchApplierTests", dependencies: ["ELF", "ProcessControl", "LivePatch", "LivePatchBuilder", "LivePatchApplier"],
            exclude: ["Fixtures"], swiftSettings: strict),
        tests("SystemTests", ["ELF", "MachineCode", "ProcessControl", "LivePatch", "LivePatchBuilder", "LivePatchApplier"]),
        tests("ProgramTests", ["ELF", "ProcessControl", "fother"]),
        .testTarget(
            name: "CorpusTests", dependencies: ["ELF", "ProcessControl", "fother"], exclude: ["Fixtures"], swiftSettings: strict),
        tests("VirtualPatchTests", ["ELF", "ProcessControl", "VirtualPatch", "Interception", .product(name: "Yams", package: "Yams")]),
        tests("InterceptionTests", ["ELF", "ProcessControl", "fother"]),
        tests("LivePatchBuilderTests", ["ELF", "MachineCode", "ProcessControl", "LivePatch", "LivePatchBuilder"]),
        // benchmarks: medians and ratios, never run by tests
        .executableTarget(
            name: "bench-build", dependencies: ["ELF", "LivePatch", "LivePatchBuilder"], path: "Benchmarks/Build", swiftSettings: strict),
        .executableTarget(
            name: "bench-apply", dependencies: ["ELF", "ProcessControl", "LivePatch", "LivePatchBuilder", "LivePatchApplier"],
            path: "Benchmarks/Apply", exclude: ["Fixtures"], swiftSettings: strict),
        .executableTarget(
            name: "soak-transitions", dependencies: ["ELF", "ProcessControl", "LivePatch", "LivePatchApplier"], path: "Benchmarks/Soak",
            swiftSettings: strict),
        .executableTarget(
            name: "bench-engine", dependencies: ["ELF", "VirtualPatch"], path: "Benchmarks/Engine", swiftSettings: strict),
        .executableTarget(
            name: "conformance", dependencies: ["ELF", "VirtualPatch", "Interception"], path: "Benchmarks/Conformance",
            swiftSettings: strict),
        .executableTarget(
            name: "own-rules", dependencies: ["ELF", "ProcessControl", "VirtualPatch", "Interception"], path: "Benchmarks/OwnRules",
            swiftSettings: strict),
        .target(
            name: "FuzzTargets", dependencies: ["ELF", "LivePatch", "LivePatchBuilder", "TrafficFuzzTargets"], path: "Fuzz/Sources",
            swiftSettings: strict),
        .target(
            name: "TrafficFuzzTargets", dependencies: ["ELF", "VirtualPatch", "Interception"], path: "Fuzz/Traffic", swiftSettings: strict),
    ]
)

// Fuzzers have libFuzzer's main and its instrumentation: scripts/fuzz asks for them, nothing else builds them.
if Context.environment["FOTHER_FUZZ"] != nil {
    let traffic = ["rules", "packets", "http"]
    for name in ["elf", "patch", "header", "dwarf", "source", "exceptions"] + traffic {
        package.targets.append(
            .executableTarget(
                name: "fuzz-\(name)", dependencies: [traffic.contains(name) ? "TrafficFuzzTargets" : "FuzzTargets"], path: "Fuzz/\(name)",
                swiftSettings: strict + [.unsafeFlags(["-parse-as-library"])],
                linkerSettings: [.unsafeFlags(["-sanitize=fuzzer"])]))
    }
}
