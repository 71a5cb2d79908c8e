// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machines/image/image.hpp"
#include "tests/machines/fixture.hpp"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

/// The kinds of machines that keep the promises of machine.hpp, for test cases that each is held
/// to.
namespace berth::test {

/// A machine, and who hears it.
struct running {
  std::shared_ptr<machines::machine> machine;
  std::shared_ptr<heard> listener;
};

/// A source of machines with all that makes them, ended together.
class station {
public:
  virtual ~station() = default;

  /// None: `problem` says why.
  machines::machine_source* source = nullptr;
  std::string problem;
  /// The privileged process that makes the machines.
  pid_t keeper = -1;
  /// Part of the names of all that it owns on the host.
  std::string instance;
  std::string runtime_dir;

  /// Ends the source, and what hears its machines.
  virtual void end() = 0;

  running start(machines::machine_spec spec) const {
    auto listener = std::make_shared<heard>();
    return {source->start(spec, listener), listener};
  }
  running start(const std::string& id, machines::machine_limits limits = {},
                std::vector<std::string> warm = {}) const {
    return start(machines::machine_spec{.id = id, .limits = limits, .warm = std::move(warm)});
  }
  /// The children of the keeper, oldest first: what holds a machine comes in the order in which the
  /// machines came up, and behind it what waits for machines.
  std::vector<pid_t> processes() const;
};

/// What sits at the other end of a machine's channel: the real guest, or one that lies
/// (support/probe_lies.hpp).
enum class guest_program { real, hostile };

/// What a guest may do, by the name of support/probe_lies.hpp, and what its loss is then said to be
/// about; empty: it harms nobody, not even itself.
struct lie {
  std::string name;
  std::string loss;
};

struct kind {
  std::string name;
  /// Its label keeps a station's directories apart from those of others of this process.
  std::function<std::unique_ptr<station>(const std::string& label, guest_program)> make;
  /// The languages of the machines that tests make, sorted.
  std::vector<std::string> languages;
  /// Lies before the machine is up, and later.
  std::vector<lie> early_lies;
  std::vector<lie> lies;

  // What kinds do not have alike, by design.

  /// The kernel is the machine's own, and not the host's.
  bool own_kernel = false;
  /// A state is all of the machine, its processes too: open files stand in no freeze's way. Where
  /// it is files only, the promise of machine.hpp holds: what is open for writing is named and
  /// refused.
  bool whole_states = false;
  /// A saved state has a checksum in it. Where it has none, what is no state any more is refused
  /// all the same, and other damage is found by the checksum that SNAPSHOT STORE keeps beside it.
  bool summed_states = false;
};

/// The table. A further kind is a station of its own and a row here.
const std::vector<kind>& all_kinds();
std::vector<const kind*> kind_pointers();

/// The station that most cases of a kind share: the template of virtual machines takes seconds.
station& shared_station(const kind& of);

/// Whether there is none, which is then said as a skip.
bool is_missing(const station& at);

/// Where the first source of virtual machines in this process leaves the template that the others
/// read. Goes with the process.
const std::string& data_dir();

/// The image of virtual machines with another program as process 1, made in a directory. The real
/// one stays beside it, as /init. Templates of one version are not those of another.
machines::image image_with(const machines::image& from, const std::string& program,
                           const std::string& directory, const std::string& version);

/// The same with a program that lies instead, which needs nothing of an image and boots soonest.
machines::image hostile_image(const machines::image& from, const std::string& version = "hostile");

/// Runs the case once for each kind, in the station that is shared.
#define FOR_EACH_KIND(of, at)                                                                      \
  const berth::test::kind& of = *GENERATE(from_range(berth::test::kind_pointers()));               \
  CAPTURE(of.name);                                                                                \
  berth::test::station& at = berth::test::shared_station(of);                                      \
  if (berth::test::is_missing(at))                                                                 \
  return

/// The same in a station of the case's own.
#define FOR_EACH_KIND_ALONE(of, at, label, program)                                                \
  const berth::test::kind& of = *GENERATE(from_range(berth::test::kind_pointers()));               \
  CAPTURE(of.name);                                                                                \
  auto at = of.make(label, program);                                                               \
  if (berth::test::is_missing(*at))                                                                \
  return

} // namespace berth::test
