// Any text as a libvirt domain or, where it begins with 'q', as a QEMU command line: refused, or written as a
// description that Whistler reads.
#include <string_view>

#include "vmm/import/libvirt_domain.hpp"
#include "vmm/import/qemu_command_line.hpp"
#include "vmm/import/qemu_settings.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t bytes) {
  using namespace whistler;
  const std::string text(data, data + bytes);
  ImportReport report("input");
  ImportedMachine machine;
  if (text.starts_with('q')) {
    const auto words = split_shell_words(text);
    if (!words) {
      return 0;
    }
    machine = import_qemu_command_line(*words, report);
  } else {
    machine = import_libvirt_domain(text, report);
  }
  const auto written = write_description(machine, report, "/fuzz/machine.json");
  if (!written && written.error().message.empty()) {
    __builtin_trap();
  }
  return 0;
}
