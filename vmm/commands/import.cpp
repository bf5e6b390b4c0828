// whistler import: makes a machine description of a libvirt domain or of a QEMU command line.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>

#include "base/unique_fd.hpp"
#include "vmm/commands/commands.hpp"
#include "vmm/commands/common.hpp"
#include "vmm/exit_status.hpp"
#include "vmm/import/libvirt_domain.hpp"
#include "vmm/import/qemu_command_line.hpp"
#include "vmm/import/qemu_settings.hpp"
#include "vmm/output_path.hpp"

namespace whistler {
namespace {

constexpr std::size_t kLargestSource = 4 * kMiB;

struct ImportOptions {
  std::vector<std::string> words;  ///< the domain's file, or a command line
  std::string qemu;                ///< a command line given as --qemu=...
  bool is_qemu = false;
  std::string output;
  bool force = false;
};

Result<std::string> read_source(const std::string& file) {
  const bool standard_input = file == "-";
  const UniqueFd opened(standard_input ? ::dup(STDIN_FILENO) : ::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!opened) {
    return fail_errno(errno, fmt::format("{}: cannot be opened", file));
  }
  std::string text(kLargestSource + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const auto got = ::read(opened.get(), &text[size], text.size() - size);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return fail_errno(errno, fmt::format("{}: cannot be read", file));
    }
    if (got == 0) {
      break;
    }
    size += static_cast<std::size_t>(got);
  }
  if (size == 0) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: is empty: give what `virsh dumpxml NAME` prints", file));
  }
  if (size > kLargestSource) {
    return fail(ErrorCode::kInvalid, fmt::format("{}: is larger than 4 MiB; that is no domain", file));
  }
  text.resize(size);
  return text;
}

Result<void> write_all(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const auto put = ::write(fd, text.data(), text.size());
    if (put < 0 && errno != EINTR) {
      return fail_errno(errno, fmt::format("{}: cannot be written", path));
    }
    text.remove_prefix(put < 0 ? 0 : static_cast<std::size_t>(put));
  }
  return {};
}

/// Pipes and devices are written to as they are; there is nothing in them to lose.
bool is_stream(const std::string& path) {
  struct stat info{};
  return ::stat(path.c_str(), &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISCHR(info.st_mode));
}

/// The file is there whole or not at all, and what was there before stays until then.
Result<void> write_file(const std::string& path, std::string_view text, bool force) {
  if (is_stream(path)) {
    const UniqueFd stream(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    return stream ? write_all(stream.get(), text, path)
                  : Result<void>(fail_errno(errno, fmt::format("{}: cannot be opened for writing", path)));
  }
  struct stat info{};
  if (::lstat(path.c_str(), &info) == 0 && !force && !S_ISDIR(info.st_mode)) {
    return fail(ErrorCode::kExists, fmt::format("{}: exists; give --force to replace it", path));
  }
  if (auto possible = check_output_file(path); !possible) {
    return possible;
  }
  std::string temporary = path + ".XXXXXX";
  const UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) {
    return fail_errno(errno, fmt::format("{}: cannot be created", path));
  }
  auto done = write_all(fd.get(), text, path);
  if (done) {
    const mode_t mask = ::umask(0);
    ::umask(mask);
    // link() fails where rename() would replace what somebody has made meanwhile.
    const bool placed =
        ::fchmod(fd.get(), 0666 & ~mask) == 0 &&
        (force ? ::rename(temporary.c_str(), path.c_str()) : ::link(temporary.c_str(), path.c_str())) == 0;
    if (!placed) {
      done = fail_errno(errno, fmt::format("{}: cannot be created", path));
    }
  }
  if (!done || !force) {
    ::unlink(temporary.c_str());
  }
  return done;
}

Result<void> check_output(const ImportOptions& options, const ImportedMachine& machine) {
  const auto is_output = [&](const std::string& file) {
    return !file.empty() && same_file(file, options.output);
  };
  if (!options.is_qemu && is_output(options.words.front())) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: is the domain itself; give the description another name", options.output));
  }
  for (const auto& drive : machine.drives) {
    if (is_output(drive.file)) {
      return fail(
          ErrorCode::kInvalid,
          fmt::format("{}: is the image of a drive; give the description another name", options.output));
    }
  }
  return {};
}

/// Fills `machine` from what the arguments name.
Result<void> read_machine(const ImportOptions& options, ImportReport& report, ImportedMachine& machine) {
  if (!options.is_qemu) {
    const auto text = read_source(options.words.front());
    if (!text) {
      return std::unexpected(text.error());
    }
    machine = import_libvirt_domain(*text, report);
    return {};
  }
  auto words = options.words;
  // A single word is a whole line, as the shell hands on what stands in quotes.
  if (words.size() <= 1) {
    auto split = split_shell_words(words.empty() ? options.qemu : words.front());
    if (!split) {
      return std::unexpected(split.error().within("--qemu"));
    }
    words = std::move(*split);
  }
  machine = import_qemu_command_line(words, report);
  return {};
}

int complain(std::string_view message) {
  report(message);
  return kExitUsage;
}

int import_machine(const ImportOptions& options) {
  if (options.is_qemu && !options.qemu.empty() && !options.words.empty()) {
    return complain("--qemu: give the command line as one string or as words after --, not both");
  }
  if (!options.is_qemu && options.words.size() > 1) {
    return complain(
        fmt::format("{}: one domain at a time; for a QEMU command line: whistler import --qemu -- "
                    "qemu-system-i386 ...",
                    options.words[1]));
  }
  if (!options.is_qemu && options.words.empty()) {
    return complain("give a domain.xml, or --qemu and a command line; see whistler import --help");
  }
  const std::string source = options.is_qemu ? "--qemu" : options.words.front();
  ImportReport notes(source == "-" ? "standard input" : source);
  ImportedMachine machine;
  if (auto read = read_machine(options, notes, machine); !read) {
    return complain(read.error().message);
  }
  const auto text = write_description(machine, notes, options.output);
  if (!text) {
    return complain(text.error().message);
  }
  Result<void> written;
  if (options.output.empty()) {
    written = write_all(STDOUT_FILENO, *text, "standard output");
  } else if (written = check_output(options, machine); written) {
    written = write_file(options.output, *text, options.force);
  }
  if (!written) {
    return complain(written.error().message);
  }
  for (const auto& line : notes.notes()) {
    report("warning: " + line);
  }
  return 0;
}

}  // namespace

void add_import_command(CLI::App& app, int& status) {
  auto* command =
      app.add_subcommand("import", "Make a description of a libvirt domain or a QEMU command line");
  auto options = std::make_shared<ImportOptions>();
  command->add_option(
      "DOMAIN.xml", options->words,
      "What `virsh dumpxml NAME` prints; - reads it from standard input. With --qemu: a QEMU command "
      "line");
  // A flag, for an option would take the -- away. It may have the command line as its value.
  auto* qemu =
      command->add_flag("--qemu", options->qemu, "Take a QEMU command line: one string, or words after --");
  command->add_option("-o,--output", options->output, "Write the description here, not to standard output")
      ->type_name("MACHINE.json")
      ->check([](const std::string& text) { return text.empty() ? "is empty: give a file name" : ""; });
  command->add_flag("--force", options->force, "Replace MACHINE.json if it exists");
  command->footer(
      "Each thing that does not come along, because Whistler lacks it, is one line on standard "
      "error: what it\nis, where it stands, what to do. Disks on virtio, SCSI or SATA become IDE disks. A "
      "drive without a format (-hda) is\nlooked at once, and the line says what was found. Nothing is "
      "started "
      "and no image is changed.\n\n"
      "Exit status: 0 the description is written; 2 the source or an argument is wrong: one line says what, "
      "and "
      "nothing is\nwritten.\n\n"
      "Examples:\n"
      "  virsh dumpxml WinXP | whistler import - -o winxp.json\n"
      "  whistler import --qemu \"qemu-system-i386 -m 512 -hda 'My Disk.qcow2' -cdrom xp.iso -boot d -vnc "
      ":1\"\n"
      "  whistler import -o winxp.json --qemu -- qemu-system-i386 -m 512 -hda \"$HOME/xp.qcow2\"\n"
      "  whistler check winxp.json && whistler run winxp.json");
  command->callback([options, qemu, &status] {
    options->is_qemu = qemu->count() > 0;
    if (options->qemu == "true") {  // the flag alone
      options->qemu.clear();
    }
    status = import_machine(*options);
  });
}

}  // namespace whistler
