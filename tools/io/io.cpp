// whistler io: qemu-io's command line and its prompt.
#include <fmt/format.h>
#include <getopt.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>

#include "tools/io/command.hpp"
#include "tools/io/open_image.hpp"
#include "tools/io/session.hpp"
#include "tools/objects.hpp"

namespace whistler::tools {

namespace {

using io::OpenRequest;
using io::Session;

void print_usage(const Call& call) {
  fmt::print(
      "Usage: {} [OPTIONS]... [-c STRING]... [file]\n"
      "QEMU Disk exerciser\n"
      "\n"
      "  --object OBJECTDEF   define an object such as 'secret' for\n"
      "                       passwords and/or encryption keys\n"
      "  --image-opts         treat file as option string\n"
      "  -c, --cmd STRING     execute command with its arguments\n"
      "                       from the given string\n"
      "  -f, --format FMT     specifies the block driver to use\n"
      "  -r, --read-only      export read-only\n"
      "  -s, --snapshot       use snapshot file\n"
      "  -n, --nocache        disable host cache, short for -t none\n"
      "  -C, --copy-on-read   enable copy-on-read\n"
      "  -m, --misalign       misalign allocations for O_DIRECT\n"
      "  -k, --native-aio     use kernel AIO implementation\n"
      "                       (Linux only, prefer use of -i)\n"
      "  -i, --aio=MODE       use AIO mode (threads, native or io_uring)\n"
      "  -t, --cache=MODE     use the given cache mode for the image\n"
      "  -d, --discard=MODE   use the given discard mode for the image\n"
      "  -T, --trace [[enable=]<pattern>][,events=<file>][,file=<file>]\n"
      "                       specify tracing options\n"
      "                       see qemu-img(1) man page for full description\n"
      "  -U, --force-share    force shared permissions\n"
      "  -h, --help           display this help and exit\n"
      "  -V, --version        output version information and exit\n"
      "\n"
      "See '{} -c help' for information on available commands.\n"
      "\n"
      "See <https://qemu.org/contribute/report-a-bug> for how to report bugs.\n"
      "More information on the QEMU project at <https://qemu.org>.\n",
      call.program, call.program);
}

enum LongOnly : int { kObject = 256, kImageOptions };

constexpr std::array kOptions = {
    option{"help", no_argument, nullptr, 'h'},
    option{"version", no_argument, nullptr, 'V'},
    option{"cmd", required_argument, nullptr, 'c'},
    option{"format", required_argument, nullptr, 'f'},
    option{"read-only", no_argument, nullptr, 'r'},
    option{"snapshot", no_argument, nullptr, 's'},
    option{"nocache", no_argument, nullptr, 'n'},
    option{"copy-on-read", no_argument, nullptr, 'C'},
    option{"misalign", no_argument, nullptr, 'm'},
    option{"native-aio", no_argument, nullptr, 'k'},
    option{"aio", required_argument, nullptr, 'i'},
    option{"discard", required_argument, nullptr, 'd'},
    option{"cache", required_argument, nullptr, 't'},
    option{"trace", required_argument, nullptr, 'T'},
    option{"force-share", no_argument, nullptr, 'U'},
    option{"object", required_argument, nullptr, kObject},
    option{"image-opts", no_argument, nullptr, kImageOptions},
    option{nullptr, 0, nullptr, 0},
};

/// The command line, taken apart.
struct Settings {
  OpenRequest request = {};
  std::vector<std::string> commands = {};
  std::vector<std::string> objects = {};
  bool misaligned = false;
};

/// The exit status where the command line itself says so.
std::optional<int> parse(const Call& call, Session& session, Settings& settings) {
  std::vector<std::string> words = call.arguments;
  words.insert(words.begin(), call.program);
  std::vector<char*> pointers;
  for (auto& word : words) {
    pointers.push_back(word.data());
  }
  pointers.push_back(nullptr);
  auto& request = settings.request;
  const int count = static_cast<int>(words.size());
  optind = 0;
  for (int option = 0; (option = ::getopt_long(count, pointers.data(), "hVc:d:f:rsnCmki:t:T:U",
                                               kOptions.data(), nullptr)) != -1;) {
    switch (option) {
      case 's': request.snapshot = true; break;
      case 'n': request.cache = CacheMode::kNone; break;
      case 'C': request.copy_on_read = true; break;
      case 'd':
        if (!take_discard(session, optarg, request)) {
          return 1;
        }
        break;
      case 'f': request.format = optarg; break;
      case 'c': settings.commands.emplace_back(optarg); break;
      case 'r': request.read_only = true; break;
      case 'k': request.native_aio = true; break;
      case 'i':
        if (!take_aio(session, optarg, request)) {
          return 1;
        }
        break;
      case 't':
        if (!take_cache(session, optarg, request)) {
          return 1;
        }
        break;
      case 'T': break;
      case 'm': settings.misaligned = true; break;
      case 'U': request.force_share = true; break;
      case 'V':
        fmt::print(
            "qemu-io version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\n"
            "Copyright (c) 2003-2022 Fabrice Bellard and the QEMU Project developers\n");
        return 0;
      case 'h': print_usage(call); return 0;
      case kObject: settings.objects.emplace_back(optarg); break;
      case kImageOptions: request.image_options = true; break;
      default: print_usage(call); return 1;
    }
  }
  if (count - optind > 1) {
    print_usage(call);
    return 1;
  }
  if (!request.format.empty() && request.image_options) {
    session.complain("--image-opts and -f are mutually exclusive");
    return 1;
  }
  if (optind < count) {
    request.name =
        pointers[static_cast<std::size_t>(optind)];  // getopt moves the operands behind the options
    request.named = true;
  }
  return std::nullopt;
}

/// Whether a line can be read from standard input; what is in flight goes on meanwhile.
void wait_for_input(Session& session) {
  for (;;) {
    std::array<pollfd, 2> files = {pollfd{STDIN_FILENO, POLLIN, 0}, pollfd{session.ring().fd(), POLLIN, 0}};
    const int ready = ::poll(files.data(), session.busy() ? 2 : 1, -1);
    if (files[1].revents != 0) {
      session.turn(false);
    }
    if (ready < 0 || files[0].revents != 0) {
      return;
    }
  }
}

/// Commands from standard input until it ends.
bool converse(Session& session) {
  // What is read ahead would be hidden from poll().
  std::setvbuf(stdin, nullptr, _IONBF, 0);
  bool all_well = true;
  std::string line;
  bool more = true;
  while (more && !session.quit()) {
    fmt::print("{}> ", "qemu-io");
    std::fflush(stdout);
    line.clear();
    int character = 0;
    for (;;) {
      if (session.busy()) {
        wait_for_input(session);
      }
      character = std::getchar();
      if (character == EOF || character == '\n') {
        break;
      }
      line.push_back(static_cast<char>(character));
    }
    more = character != EOF;
    if (more || !line.empty()) {
      all_well = session.run(line) && all_well;
      more = true;  // what follows an unfinished last line is another prompt, and the end
    }
  }
  return all_well;
}

}  // namespace

int io_main(const Call& call) {
  auto ring = Ring::create_for_tool();
  if (!ring) {
    complain(call, ring.error().message);
    return 1;
  }
  Session session(call, **ring);
  Settings settings;
  if (const auto status = parse(call, session, settings)) {
    return *status;
  }
  for (const auto& object : settings.objects) {
    if (const auto defined = define_object(object); !defined) {
      session.complain(defined.error().message);
      return 1;
    }
  }
  session.set_misaligned(settings.misaligned);
  if (settings.request.named && !session.open(settings.request)) {
    return 1;
  }
  bool all_well = true;
  if (settings.commands.empty()) {
    all_well = converse(session);
  }
  for (const auto& command : settings.commands) {
    if (session.quit()) {
      break;
    }
    all_well = session.run(command) && all_well;
  }
  session.close();
  return all_well ? 0 : 1;
}

}  // namespace whistler::tools
