// `fother sign PATCH --key FILE`: vouches for a patch, so that hosts that trust the key apply it.

import ArgumentParser
import ELF
import Foundation
import LivePatch
import ProcessControl

struct SignCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sign", abstract: "Sign a patch file with a key (Ed25519), or make a key.",
        discussion: """
            The signature is added to PATCH.sig, beside the file. A host trusts the keys in /etc/fother/keys (*.pub), which only root \
            may write. `fother sign --new-key FILE` writes a secret key to FILE and its public half to FILE.pub.
            """)

    @Argument(help: "A patch file.") var patch: String?
    @Option(help: "The secret key.") var key: String?
    @Option(help: "Make a key: write it to this file, and its public half beside it.") var newKey: String?
    @Option(help: "With --new-key: whose key it is, for people.") var name: String = "unnamed"

    func validate() throws {
        if (newKey != nil) == (patch != nil || key != nil) || (patch == nil) != (key == nil) {
            throw ValidationError("Give a patch and --key, or --new-key alone.")
        }
    }

    func run() throws {
        try Program.run {
            if let newKey {
                let key = SecretKey(name: name)
                for (path, text, mode) in [(newKey, key.text, 0o600), (newKey + ".pub", key.publicKey.text, 0o644)] {
                    guard !FileManager.default.fileExists(atPath: path) else {
                        throw Failure(
                            "output-exists", "a file is there already.", at: path,
                            remedy: "Choose another name: a key is never overwritten.")
                    }
                    guard
                        FileManager.default.createFile(
                            atPath: path, contents: Data((text + "\n").utf8), attributes: [.posixPermissions: mode])
                    else { throw Failure("output-unwritable", "the key cannot be written.", at: path) }
                }
                Output.line("\(Theme.good("made"))  \(newKey) (keep it secret) and \(newKey).pub (for /etc/fother/keys of the hosts)")
                return Exit.done
            }
            guard let patch, let keyFile = key else { return Exit.error }
            let text = String(decoding: try RegularFile.read(keyFile, limitBytes: Trust.keyBytesMax), as: UTF8.self)
            guard let key = SecretKey(text) else {
                throw Failure(
                    "key-malformed", "it is no secret key of fother's.", at: keyFile, remedy: "Make one with: fother sign --new-key FILE")
            }
            let live = try LivePatch(parsing: RegularFile.read(patch), name: patch)
            let path = patch + ".sig"
            let before = String(decoding: (try? RegularFile.read(path, limitBytes: Trust.signaturesBytesMax)) ?? [], as: UTF8.self)
            let signature = try key.sign(live.id)
            if !PatchSignature.all(in: before).contains(where: { $0.isValid(live.id, by: key.publicKey) }) {
                do { try Data((before + signature.text + "\n").utf8).write(to: URL(fileURLWithPath: path), options: .atomic) } catch {
                    throw Failure("output-unwritable", "the signature cannot be written: \(error.localizedDescription).", at: path)
                }
            }
            Output.line("\(Theme.good("signed"))  \(patch) by \(key.name): \(path)")
            return Exit.done
        }
    }
}
