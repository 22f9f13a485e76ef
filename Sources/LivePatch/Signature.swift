// Who vouches for a patch: an Ed25519 signature over its id, and the keys that make and check one. Each is one line of text.

import Crypto
import ELF
import Foundation

/// A key that may be trusted. Text: `fother-key/1 BASE64 NAME`.
public struct PublicKey: Hashable, Sendable {
    static let tag = "fother-key/1"
    public let bytes: [UInt8]
    /// For people; nobody checks it.
    public let name: String

    /// Nil for text that is no key.
    public init?(_ text: String) {
        guard let (bytes, rest) = fields(text, Self.tag), (try? Curve25519.Signing.PublicKey(rawRepresentation: bytes)) != nil else {
            return nil
        }
        self.init(bytes: Array(bytes), name: rest)
    }
    init(bytes: [UInt8], name: String) {
        self.bytes = bytes
        self.name = name
    }

    public var text: String { "\(Self.tag) \(Data(bytes).base64EncodedString()) \(name)" }
}

/// A key that signs. Text: `fother-secret-key/1 BASE64 NAME`.
public struct SecretKey: Sendable {
    static let tag = "fother-secret-key/1"
    private let key: Curve25519.Signing.PrivateKey
    public let name: String

    /// A new one.
    public init(name: String) {
        key = Curve25519.Signing.PrivateKey()
        self.name = name
    }
    /// Nil for text that is no secret key.
    public init?(_ text: String) {
        guard let (bytes, rest) = fields(text, Self.tag), let key = try? Curve25519.Signing.PrivateKey(rawRepresentation: bytes) else {
            return nil
        }
        self.key = key
        name = rest
    }

    public var text: String { "\(Self.tag) \(key.rawRepresentation.base64EncodedString()) \(name)" }
    public var publicKey: PublicKey { PublicKey(bytes: Array(key.publicKey.rawRepresentation), name: name) }

    public func sign(_ id: PatchID) throws(Failure) -> PatchSignature {
        guard let bytes = try? key.signature(for: PatchSignature.message(id)) else {
            throw Failure("key-malformed", "the key does not sign.", at: name)
        }
        return PatchSignature(key: publicKey.bytes, bytes: Array(bytes))
    }
}

/// Text: `fother-signature/1 BASE64-KEY BASE64-SIGNATURE`.
public struct PatchSignature: Hashable, Sendable {
    static let tag = "fother-signature/1"
    let key: [UInt8]
    let bytes: [UInt8]

    /// Every signature in the text; lines that are none are left out.
    public static func all(in text: String) -> [PatchSignature] {
        text.split(separator: "\n").compactMap { line in
            guard let (key, rest) = fields(String(line), tag), let bytes = Data(base64Encoded: rest), bytes.count == 64 else { return nil }
            return PatchSignature(key: Array(key), bytes: Array(bytes))
        }
    }

    public var text: String { "\(Self.tag) \(Data(key).base64EncodedString()) \(Data(bytes).base64EncodedString())" }

    /// Whether `key` made it for the patch with this id.
    public func isValid(_ id: PatchID, by key: PublicKey) -> Bool {
        guard key.bytes == self.key, let verifier = try? Curve25519.Signing.PublicKey(rawRepresentation: key.bytes) else { return false }
        return verifier.isValidSignature(Data(bytes), for: Self.message(id))
    }

    /// What is signed says what it is, so that a signature for something else is none for a patch.
    static func message(_ id: PatchID) -> Data { Data("fother-patch/1\n".utf8) + Data(id.bytes) }
}

/// The 32 bytes and the rest of a line `TAG BASE64 REST`.
private func fields(_ line: String, _ tag: String) -> (Data, String)? {
    let parts = line.trimmingCharacters(in: .whitespacesAndNewlines).split(separator: " ", maxSplits: 2).map(String.init)
    guard parts.count >= 2, parts[0] == tag, let bytes = Data(base64Encoded: parts[1]), bytes.count == 32 else { return nil }
    return (bytes, parts.count > 2 ? parts[2] : "")
}
