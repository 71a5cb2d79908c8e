// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/roles.hpp"

#include "actors/agents/role_store.hpp"
#include "config/log.hpp"
#include "config/role_files.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

namespace berth {

namespace {

/// How soon a change of the file by an editor's hand is seen.
constexpr std::chrono::seconds look_every{2};

/// To others it is ROLES; its own clock is nobody's business.
using roles_self = roles_actor::extend<caf::reacts_to<caf::tick_atom>>;

/// ROLES: who an agent can be. It has a thread of its own, for a change is synced before it is
/// answered; changes stand in its mailbox, so they happen one after another.
class roles_state {
public:
  static constexpr const char* name = "berth.roles";

  roles_self::behavior_type make_behavior(roles_self::pointer self,
                                          std::shared_ptr<role_store> store) {
    self_ = self;
    store_ = std::move(store);
    self_->delayed_send(self_, look_every, caf::tick_atom_v);
    return {
        [this](const find_role& x) { return answer(book().find(x.role)); },
        [this](const list_roles& x) { return answer(book().list(x.role)); },
        [this](const get_config&) { return config_text{.json = book().public_text()}; },
        [this](const set_config& x) {
          look();
          return take(book().replaced(x.json));
        },
        [this](const select_role& x) {
          look();
          return take(book().selected(x.role));
        },
        [this](caf::tick_atom) {
          look();
          self_->delayed_send(self_, look_every, caf::tick_atom_v);
        },
    };
  }

private:
  const role_book& book() const { return store_->book(); }

  template <class T>
  static caf::result<T> answer(expected<T> found) {
    if (!found)
      return found.error();
    return std::move(*found);
  }

  caf::result<config_text> take(const expected<role_book>& changed) {
    if (error why = store_->take(changed))
      return why;
    return config_text{.json = book().public_text()};
  }

  void look() {
    if (error why = store_->refresh())
      log::error("roles", "the former configuration goes on to hold",
                 {{"why", describe_error(why)}});
  }

  roles_self::pointer self_ = nullptr;
  std::shared_ptr<role_store> store_;
};

roles_self::behavior_type roles_behavior(roles_self::stateful_pointer<roles_state> self,
                                         std::shared_ptr<role_store> store) {
  return state_of(self).make_behavior(self, std::move(store));
}

} // namespace

expected<roles_actor> spawn_roles(caf::actor_system& system, std::shared_ptr<const settings> values,
                                  std::shared_ptr<const config::ordered> shipped) {
  auto store = role_store::open(std::move(values), std::move(shipped));
  if (!store)
    return store.error();
  return system.spawn<caf::detached>(roles_behavior,
                                     std::make_shared<role_store>(std::move(*store)));
}

expected<roles_actor> spawn_roles(caf::actor_system& system, const settings& values) {
  auto shipped = config::read_role_files(values.agents.roles_dir);
  if (!shipped)
    return shipped.error();
  return spawn_roles(system, std::make_shared<const settings>(values),
                     std::make_shared<const config::ordered>(std::move(*shipped)));
}

} // namespace berth
