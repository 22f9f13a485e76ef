// A patch without its parts about tests and notes: what is left is whole.

import Foundation
import Testing

@testable import LivePatchBuilder

@Suite struct PatchTextTests {
    private func ofCode(_ text: String) -> String { String(decoding: PatchText.ofCode(Array(text.utf8)), as: UTF8.self) }

    private static let code = """
        --- a/src/shop.c
        +++ b/src/shop.c
        @@ -1,3 +1,4 @@
         int till;
        --- a/tests/looks-like-a-header.c
        +++ b/tests/is-a-line-that-was-added.c
        +int more;
         int end;
        \\ No newline at end of file

        """
    private static let tests = """
        diff --git a/tests/t.c b/tests/t.c
        --- a/tests/t.c
        +++ b/tests/t.c
        @@ -7 +7,2 @@ here
        -int a;
        +int a;
        +--- a/src/other.c
        """

    @Test("parts about tests and documents go, what stands in a part stays in it, whatever it looks like")
    func parts() {
        let notes = "--- a/ChangeLog\n+++ b/ChangeLog\n@@ -1 +1 @@\n-x\n+y\n"
        #expect(ofCode("From: A\nSubject: b\n\n" + Self.tests + "\n" + Self.code + notes) == Self.code)
        #expect(ofCode(Self.code + Self.tests + "\n") == Self.code)
        #expect(ofCode(Self.tests) == "")
    }

    @Test("a new file is told by its new name, a removed one by its old")
    func newAndGone() {
        let new = "--- /dev/null\n+++ b/src/new.c\n@@ -0,0 +1 @@\n+int a;\n"
        let gone = "--- a/src/old.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-int a;\n"
        #expect(ofCode(new + gone) == new + gone)
        #expect(ofCode(new.replacingOccurrences(of: "src/", with: "tests/")) == "")
    }

    @Test("a patch that renames or changes modes is given back whole")
    func whole() {
        let text = "diff --git a/tests/a.c b/tests/b.c\nrename from tests/a.c\nrename to tests/b.c\n" + Self.code
        #expect(ofCode(text) == text)
    }
}
