// The house as a table: which room may import which, and why. Change this together with docs/ARCHITECTURE.md.

/// One target under `Sources/`.
struct Room {
    let name: String
    /// Modules of this package and of others that its files may import.
    let may: Set<String>
    /// Completes the sentence "this room …", printed when an import breaks the rule.
    let because: String
}

let rooms: [Room] = [
    Room(name: "CLinux", may: [], because: "is a C shim over system calls and decides nothing"),
    Room(name: "CZydis", may: [], because: "is the door to the instruction decoder and decides nothing"),
    Room(name: "CVectorscan", may: [], because: "is the door to the multi-pattern matcher and decides nothing"),
    Room(name: "CPCRE2", may: [], because: "is the door to regular expressions and decides nothing"),
    Room(name: "CHTP", may: [], because: "drives the HTTP parser and turns its callbacks into events"),
    Room(name: "CInjection", may: [], because: "finds libinjection at run time and decides nothing"),
    Room(name: "ELF", may: [], because: "says what bytes mean, wherever they came from; it never touches a process"),
    Room(
        name: "MachineCode", may: ["CZydis", "ELF"],
        because: "knows instructions, not patches; a new processor is a new folder here"),
    Room(
        name: "ProcessControl", may: ["CLinux", "ELF", "Glibc", "Synchronization"],
        because: "is the only room that reaches the kernel's process interfaces; it knows no patch and no CVE"),
    Room(
        name: "Advisories", may: ["ELF"],
        because: "turns advisory text and package databases into values; it never looks at processes"),
    Room(
        name: "LivePatch", may: ["ELF", "MachineCode", "Crypto", "Foundation"],
        because: "holds the meaning of a patch as pure values (Foundation writes the manifest's JSON); it never touches a process"),
    Room(
        name: "VirtualPatch", may: ["CVectorscan", "CPCRE2", "CHTP", "CInjection", "ELF", "Glibc", "Yams"],
        because: "turns rules and bytes into verdicts; time is passed in, and it opens no socket and no file"),
    Room(
        name: "Interception", may: ["ELF", "VirtualPatch"],
        because: "brings traffic to the engine and holds no meaning of rules"),
    Room(
        name: "LivePatchBuilder",
        may: ["ELF", "MachineCode", "ProcessControl", "Advisories", "LivePatch", "Foundation"],
        because: "derives patches from two images and never patches a process"),
    Room(
        name: "LivePatchApplier", may: ["ELF", "MachineCode", "LivePatch", "ProcessControl", "Synchronization"],
        because: "carries out one plan in one process and does not choose what to apply"),
    Room(
        name: "fother",
        may: [
            "ELF", "MachineCode", "ProcessControl", "Advisories", "LivePatch", "LivePatchBuilder", "LivePatchApplier",
            "VirtualPatch", "Interception", "ArgumentParser", "Foundation", "Synchronization",
        ],
        because: "wires rooms, parses arguments and prints; the kernel is ProcessControl's business"),
]

/// The only files in which the word `unsafe` may stand: glue to the kernel and to C libraries. Each must need it.
let unsafeFiles: Set<String> = [
    "Sources/MachineCode/X86_64/Decoder.swift",
    "Sources/ProcessControl/PointerSearch.swift",
    "Sources/ProcessControl/RegularFile.swift",
    "Sources/ProcessControl/SystemCalls.swift",
    "Sources/ProcessControl/Trace/TracingCalls.swift",
    "Sources/ProcessControl/WordReader.swift",
    "Sources/VirtualPatch/HTTP/HTTPParser.swift",
    "Sources/VirtualPatch/Match/ByteCopy.swift",
    "Sources/VirtualPatch/Match/InjectionDetector.swift",
    "Sources/VirtualPatch/Match/LiteralSearch.swift",
    "Sources/VirtualPatch/Match/Prefilter.swift",
    "Sources/VirtualPatch/Match/Regex.swift",
]

/// A name that says nothing about what is inside attracts everything. The file's room lacks a noun.
let drawerNames = ["Util", "Helper", "Common", "Misc", "Extras", "Manager", "Stuff"]
