// Notes: where a file or a memory image says who it is.

extension ELFFile {
    static func readBuildID(_ bytes: Bytes, _ sections: [Section], _ segments: [Segment]) -> BuildID? {
        for s in sections where s.type == Section.note {
            if let id = buildID(inNotes: bytes.slice(Int(s.offset.value), s.size) ?? []) { return id }
        }
        for s in segments where s.type == Segment.note {
            if let id = buildID(inNotes: bytes.slice(Int(s.offset.value), s.fileSize) ?? []) { return id }
        }
        return nil
    }

    /// Finds the GNU build ID in the contents of a note section or segment; nil when there is none or it is malformed.
    public static func buildID(inNotes notes: ArraySlice<UInt8>) -> BuildID? {
        let view = Bytes(Array(notes), name: "notes")
        var at = 0
        while let nameSize = view.u32(at), let size = view.u32(at + 4), let type = view.u32(at + 8) {
            guard nameSize < 1 << 16, size < 1 << 20 else { return nil }
            let name = at + 12
            let description = name + (Int(nameSize) + 3) & ~3
            if type == 3, nameSize == 4, view.slice(name, 4).map(Array.init) == [0x47, 0x4e, 0x55, 0] {
                return view.slice(description, Int(size)).flatMap { BuildID(bytes: Array($0)) }
            }
            at = description + (Int(size) + 3) & ~3
        }
        return nil
    }
}
