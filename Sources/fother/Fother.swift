// The program: parses arguments, wires rooms, prints through one door.

import ArgumentParser
import LivePatchBuilder

@main
struct Fother: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fother", abstract: "Closes known holes in running software, without restarting it.",
        version: builderVersion,
        subcommands: [
            PsCommand.self, BuildCommand.self, InspectCommand.self, ApplyCommand.self, RevertCommand.self, SymbolsCommand.self,
            MitigateCommand.self, SignCommand.self,
            RulesCommand.self, DemoCommand.self,
        ])
}
