// What `fother build` was asked to compare: pairs of objects with what is known about them, however they were given.

import ArgumentParser
import ELF
import Foundation
import LivePatch
import LivePatchBuilder

/// One object in two builds.
struct BuildPair {
    var path: String
    var old: [UInt8]
    var new: [UInt8]
    var context: BuildContext
}

struct BuildPlan {
    var title: String?
    var pairs: [BuildPair]
    var changelog: (named: [String], isComplete: Bool)?
    var evidence: [LayoutEvidence] = []
    /// Where the two builds come from, as the record of what this host derived has it.
    var origins: (old: String, new: String)
    /// Where both builds from source are kept.
    var kept: String?
    /// Objects that cannot be compared, and why.
    var failures: [(object: String, failure: Failure)] = []
}

extension BuildCommand {
    func plan() throws -> BuildPlan {
        let cache = PackageCache(folder: PatchStore.cacheFolder)
        if let source { return try sourcePlan(source, cache) }
        guard let old else { throw Failure("input-not-found", "no build is named.", remedy: "Give OLD and NEW.") }
        Output.progress("reading \(old)")
        let a = try BuildInput.read(old, only: object, cache: cache)
        if itself {
            let pairs = a.objects.map {
                BuildPair(path: $0.path, old: $0.bytes, new: $0.bytes, context: BuildContext(object: $0.path, package: a.package))
            }
            return BuildPlan(pairs: pairs, origins: (a.origin, a.origin))
        }
        Output.progress("reading \(new ?? "")")
        let b = try BuildInput.read(new ?? "", only: object, cache: cache)
        var plan = BuildPlan(pairs: [], changelog: BuildInput.cves(a, b), origins: (a.origin, b.origin))
        if let package = a.package ?? b.package, let from = a.version, let to = b.version {
            plan.title = "\(Theme.strong(package))  \(from) -> \(to)"
        }
        let differing = BuildInput.pairs(a, b).filter { $0.old.bytes != $0.new.bytes }
        if !differing.isEmpty { plan.evidence = [try sources(a, b, cache)] }
        for pair in differing {
            var context = BuildContext(
                object: pair.old.path, package: a.package ?? b.package, oldVersion: a.version, newVersion: b.version,
                cves: plan.changelog?.named ?? [], cvesAreComplete: plan.changelog?.isComplete)
            context.evidence = plan.evidence
            context.explains = explain
            let folders = debugFolders + [DebugFiles.standard]
            do {
                context.oldDebug = try DebugFiles.find(for: pair.old.bytes, in: folders)
                context.newDebug = try DebugFiles.find(for: pair.new.bytes, in: folders)
            } catch let failure as Failure {
                // Evidence that cannot be read is none, and no reason not to look at the builds.
                context.evidence.append(LayoutEvidence(absent: "dwarf", because: failure))
            }
            plan.pairs.append(BuildPair(path: pair.old.path, old: pair.old.bytes, new: pair.new.bytes, context: context))
        }
        return plan
    }

    /// What the sources of both versions say about live data.
    private func sources(_ a: BuildInput, _ b: BuildInput, _ cache: PackageCache) throws -> LayoutEvidence {
        if let oldSource, let newSource {
            Output.progress("comparing sources")
            return LayoutEvidence(try SourceComparison.compare(old: oldSource, new: newSource))
        }
        if noSources { return LayoutEvidence(absent: "source", because: "--no-sources was given.") }
        Output.progress("fetching and comparing sources")
        return SourcePackages.evidence(a, b, cache: cache)
    }

    /// One fix for the build that is installed: built from source with and without it.
    private func sourcePlan(_ word: String, _ cache: PackageCache) throws -> BuildPlan {
        let change = SourceBuild.Change(reverting: revert, applying: patch)
        let built = try SourceBuild.run(
            word, change, object: object, installingDependencies: installBuildDependencies, cache: cache, progress: Output.progress)
        let fix = (patch.isEmpty ? revert : patch).map { ($0 as NSString).lastPathComponent }.joined(separator: ", ")
        var plan = BuildPlan(
            title: "\(Theme.strong(word))  and \(fix)", pairs: [], evidence: [built.evidence],
            origins: (revert.isEmpty ? built.package.origin : "built from source", "built from source"))
        plan.kept = built.kept
        if !revert.isEmpty { plan.title = (plan.title ?? "") + "\nfor the build without it, kept in \(built.kept)/unfixed" }
        for o in built.objects {
            Output.progress("comparing \(o.installed.path) with its own source")
            do {
                let builds = try o.comparable()
                guard builds.old != builds.new else { continue }
                var context = BuildContext(
                    object: o.installed.path, package: built.package.package, oldVersion: built.package.version,
                    newVersion: built.package.version.map { $0 + " with " + fix }, cves: built.cves)
                context.evidence = [built.evidence]
                context.explains = explain
                plan.pairs.append(BuildPair(path: o.installed.path, old: builds.old, new: builds.new, context: context))
            } catch let failure as Failure {
                plan.failures.append((o.installed.path, failure))
            }
        }
        return plan
    }
}
