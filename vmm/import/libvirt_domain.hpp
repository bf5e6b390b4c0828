// A libvirt domain (what `virsh dumpxml` prints) as a machine. Source: libvirt's "Domain XML format".
#pragma once

#include <string_view>

#include "vmm/import/imported_machine.hpp"

namespace whistler {

/// Reads the XML text of a domain. What cannot come along is noted, what is wrong is the report's error.
[[nodiscard]] ImportedMachine import_libvirt_domain(std::string_view xml, ImportReport& report);

}  // namespace whistler
