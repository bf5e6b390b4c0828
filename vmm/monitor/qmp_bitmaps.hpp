// QMP's actions for dirty bitmaps. A bitmap is of a drive, and goes on over changes of its images.
#pragma once

#include "vmm/monitor/drive_action.hpp"

namespace whistler::qmp {

[[nodiscard]] MadeAction make_bitmap_add_action(MachineControl& machine, DriveClaims& claims,
                                                Arguments& arguments);
[[nodiscard]] MadeAction make_bitmap_remove_action(MachineControl& machine, DriveClaims& claims,
                                                   Arguments& arguments);
[[nodiscard]] MadeAction make_bitmap_clear_action(MachineControl& machine, DriveClaims& claims,
                                                  Arguments& arguments);
[[nodiscard]] MadeAction make_bitmap_enable_action(MachineControl& machine, DriveClaims& claims,
                                                   Arguments& arguments);
[[nodiscard]] MadeAction make_bitmap_disable_action(MachineControl& machine, DriveClaims& claims,
                                                    Arguments& arguments);
[[nodiscard]] MadeAction make_bitmap_merge_action(MachineControl& machine, DriveClaims& claims,
                                                  Arguments& arguments);

/// What query-block says of them. Under the machine lock.
[[nodiscard]] Json bitmap_list(Drive& drive);

}  // namespace whistler::qmp
