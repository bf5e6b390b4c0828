// Where a copy of a drive goes, as the commands for it say.
#pragma once

#include <string>

#include "block/jobs/backup.hpp"
#include "block/jobs/targets.hpp"
#include "vmm/drive.hpp"
#include "vmm/monitor/qmp_protocol.hpp"

namespace whistler::qmp {

struct CopyTarget {
  std::string file = {}, format = {};
  CopySync sync = CopySync::kFull;
  bool make = true;

  /// target, format and mode.
  [[nodiscard]] static CopyTarget take(Arguments& arguments, CopySync sync);
  /// What was not given is as the drive has it.
  void settle(Drive& drive);
  /// Makes it if that is asked for, unless `stop` is asked for. Under the machine lock.
  [[nodiscard]] Task<Answer<Target>> open(Ring& ring, Drive& drive, Stop& stop) const;
};

}  // namespace whistler::qmp
