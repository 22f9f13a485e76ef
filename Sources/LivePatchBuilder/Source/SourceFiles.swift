// Which files of a source package go into the build, told by their paths: the rule is stated here, and what it does not know
// counts as something that may.

/// What a path says about a file.
enum SourceFileKind: Equatable, Sendable {
    /// C or C++, read piece by piece.
    case code(isCPlusPlus: Bool)
    /// How the build is done: what a change of it does to the code is not known.
    case build
    /// Documentation, translations, packaging, the package's own tests: nothing that a process runs comes from it.
    case notCode
    /// Anything else: scripts, grammars, assembly, data. It may be turned into code.
    case other

    private static func words(_ text: String) -> Set<String> { Set(text.split(whereSeparator: \.isWhitespace).map(String.init)) }

    private static let c = words("c h inc inl def tbl xh")
    private static let cPlusPlus = words("cc cpp cxx c++ C hh hpp hxx h++ H ipp tcc tpp")
    private static let documents = words(
        "md rst texi texinfo html htm css png jpg jpeg gif svg ico pdf ps eps odt po pot gmo asc adoc dox pod 1 2 3 4 5 6 7 8 orig rej")
    private static let documentNames = words(
        """
        ChangeLog CHANGES Changes Changelog NEWS README AUTHORS THANKS COPYING LICENSE INSTALL HACKING CREDITS BUGS RELEASE-NOTES RELEASE_NOTES
        CHANGES.txt README.txt ChangeLog.txt NEWS.txt LICENSE.txt RELEASE-NOTES.txt
        .gitignore .gitattributes .mailmap .travis.yml .clang-format .editorconfig
        """)
    private static let documentFolders = words("doc docs man manual manpages po .github .gitlab .circleci .git")
    private static let testFolders = words(
        """
        test tests testsuite testsuites testing testdata testcode unittest unittests unit-tests regress reg-tests t fuzz fuzzing fuzzers oss-fuzz
        Tests Test
        """)
    private static let builds = words("am ac m4 cmake mk build gn gyp pro map sym ver exports vers lds")
    private static let buildNames = words(
        """
        configure configure.in Configure config.h.in CMakeLists.txt meson.build meson_options.txt Makefile makefile GNUmakefile Makefile.in
        SConstruct SConscript rules config.guess config.sub ltmain.sh VERSION
        """)
    /// What a Debian package's own folder holds besides what its rules read.
    private static let packagingNames = words(
        """
        changelog copyright watch NEWS README.Debian README.source gbp.conf salsa-ci.yml .gitlab-ci.yml upstream tests source po docs control patches
        """)
    private static let packagingEndings = words(
        """
        lintian-overrides docs manpages examples install dirs links postinst preinst prerm postrm service init default logrotate symbols shlibs
        templates config triggers maintscript bug-control NEWS README.Debian cron.d
        """)

    /// `path` is relative to the package's root, without a leading slash.
    init(path: String) {
        let parts = path.split(separator: "/").map(String.init)
        guard let name = parts.last else {
            self = .other
            return
        }
        let folders = parts.dropLast()
        let ending = name.lastIndex(of: ".").map { String(name[name.index(after: $0)...]) } ?? ""
        if parts.first == "debian" {
            // Patches are in the tree already, where the format applies them; `SourceComparison` looks at that.
            let second = parts.count > 1 ? parts[1] : ""
            let isPackaging = Self.packagingNames.contains(second) || parts.count == 2 && Self.packagingEndings.contains(ending)
            self = isPackaging ? .notCode : .build
        } else if folders.contains(where: Self.testFolders.contains) || folders.contains(where: Self.documentFolders.contains) {
            self = .notCode
        } else if Self.buildNames.contains(name) || Self.builds.contains(ending) {
            self = .build
        } else if Self.c.contains(ending) {
            self = .code(isCPlusPlus: false)
        } else if Self.cPlusPlus.contains(ending) {
            self = .code(isCPlusPlus: true)
        } else if Self.documentNames.contains(name) || Self.documents.contains(ending) {
            self = .notCode
        } else {
            self = .other
        }
    }
}
