// SPDX-License-Identifier: Apache-2.0
#include "config/role_book.hpp"

#include "config/role_files.hpp"
#include "config/role_reader.hpp"
#include "config/role_shape.hpp"

#include <functional>

namespace berth {

namespace {

using config::json;
using config::lower_case;
using config::ordered;
using pointer = ordered::json_pointer;

constexpr const char* revision_name = "berth_revision";
/// Of changes: the roles' names in their order.
constexpr const char* order_name = "berth_order";
/// Configurations kept for clients that change an older one: how many, and bytes of all.
constexpr std::size_t past_max = 64;
constexpr std::size_t past_bytes_max = 32 * limits::mib;
constexpr std::string_view mark_begins = "[kept secret ";
constexpr char mark_ends = ']';

/// Equal in every value; the order of members is none.
bool same(const ordered& x, const ordered& y) {
  return json(x).dump() == json(y).dump();
}

/// Names a configuration by what is in it (FNV-1a), so that it has one name in every server.
std::string revision_of(const ordered& config) {
  std::uint64_t sum = 0xcbf29ce484222325;
  for (unsigned char c : config.dump())
    sum = (sum ^ c) * 0x100000001b3;
  constexpr const char* digits = "0123456789abcdef";
  std::string text;
  for (int shift = 60; shift >= 0; shift -= 4)
    text += digits[sum >> shift & 0xF];
  return text;
}

ordered joined_values(const ordered& base, const ordered& kept, const ordered& posted);

/// One member of the three objects, where it is in each; nothing when it is to go.
const ordered* member_of(const ordered& object, const std::string& name) {
  auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

ordered joined_objects(const ordered& base, const ordered& kept, const ordered& posted) {
  ordered made = ordered::object();
  for (const auto& [name, value] : posted.items()) {
    const ordered* was = member_of(base, name);
    const ordered* is = member_of(kept, name);
    if (is != nullptr)
      made[name] = joined_values(was == nullptr ? ordered{} : *was, *is, value);
    else if (was == nullptr || !same(*was, value)) // else it was taken away meanwhile
      made[name] = value;
  }
  for (const auto& [name, value] : kept.items())
    if (!posted.contains(name) && !base.contains(name)) // added meanwhile
      made[name] = value;
  return made;
}

/// What was posted by someone who saw `base`, joined with what is kept now.
ordered joined_values(const ordered& base, const ordered& kept, const ordered& posted) {
  if (same(base, posted))
    return kept;
  if (same(base, kept))
    return posted;
  if (base.is_object() && kept.is_object() && posted.is_object())
    return joined_objects(base, kept, posted);
  return posted;
}

/// Visits every secret of a configuration that is not empty.
template <class Json>
void each_secret(Json& value, const pointer& at,
                 const std::function<void(Json&, const pointer&)>& visit) {
  if (!value.is_structured())
    return;
  for (auto each = value.begin(); each != value.end(); ++each) {
    if (value.is_array()) {
      each_secret(*each, at / static_cast<std::size_t>(each - value.begin()), visit);
      continue;
    }
    pointer here = at / each.key();
    bool secret = each->is_string() && config::is_secret_name(each.key())
                  && !each->template get_ref<const std::string&>().empty();
    if (secret)
      visit(*each, here);
    else
      each_secret(*each, here, visit);
  }
}

ordered without_secrets(ordered config) {
  each_secret<ordered>(config, pointer{}, [](ordered& secret, const pointer& at) {
    secret = std::string{mark_begins} + at.to_string() + mark_ends;
  });
  return config;
}

/// Puts secrets of `kept` back in place of their marks. Returns the mark that names none.
std::string restore_secrets(ordered& posted, const ordered& kept) {
  std::string lost;
  each_secret<ordered>(posted, pointer{}, [&](ordered& value, const pointer&) {
    const std::string text = value.get<std::string>();
    if (!text.starts_with(mark_begins) || !text.ends_with(mark_ends))
      return;
    std::size_t size = text.size() - mark_begins.size() - 1;
    try {
      const ordered& secret = kept.at(pointer{text.substr(mark_begins.size(), size)});
      if (secret.is_string()
          && config::is_secret_name(pointer{text.substr(mark_begins.size(), size)}.back()))
        value = secret;
      else
        lost = text;
    } catch (const ordered::exception&) {
      lost = text;
    }
  });
  return lost;
}

/// Roles in the order of a list of names; those it lacks follow, what it has beyond is left out.
ordered in_order(ordered roles, const ordered& order) {
  ordered sorted = ordered::object();
  for (const ordered& name : order)
    if (name.is_string() && roles.contains(name.get<std::string>()))
      sorted[name.get<std::string>()] = std::move(roles[name.get<std::string>()]);
  for (auto& [name, role] : roles.items())
    if (!sorted.contains(name))
      sorted[name] = std::move(role);
  return sorted;
}

/// What ships, with changes. Anything may be wrong with the result: it is checked afterwards.
ordered overlaid(const ordered& shipped, const ordered& changes) {
  ordered config = shipped;
  for (const auto& [key, value] : changes.items()) {
    if (key == order_name)
      continue;
    if (key != "roles" || !value.is_object()) {
      config[key] = value;
      continue;
    }
    for (const auto& [name, role] : value.items())
      if (role.is_null())
        config["roles"].erase(name);
      else
        config["roles"][name] = role;
  }
  auto order = changes.find(order_name);
  if (order != changes.end() && order->is_array() && config["roles"].is_object())
    config["roles"] = in_order(std::move(config["roles"]), *order);
  return config;
}

ordered names_of(const ordered& roles) {
  ordered names = ordered::array();
  for (const auto& [name, role] : roles.items())
    names.push_back(name);
  return names;
}

/// What has to be changed of `shipped` to have `config`.
ordered difference(const ordered& shipped, const ordered& config) {
  ordered changes = ordered::object();
  for (const auto& [key, value] : config.items())
    if (key != "roles" && (!shipped.contains(key) || !same(shipped[key], value)))
      changes[key] = value;
  ordered roles = ordered::object();
  for (const auto& [name, role] : shipped["roles"].items())
    if (!config["roles"].contains(name))
      roles[name] = nullptr;
  for (const auto& [name, role] : config["roles"].items())
    if (!shipped["roles"].contains(name) || !same(shipped["roles"][name], role))
      roles[name] = role;
  if (!roles.empty())
    changes["roles"] = std::move(roles);
  if (names_of(overlaid(shipped, changes)["roles"]) != names_of(config["roles"]))
    changes[order_name] = names_of(config["roles"]);
  return changes;
}

} // namespace

expected<role_book> role_book::open(std::shared_ptr<const settings> values,
                                    std::shared_ptr<const ordered> shipped,
                                    std::string_view changes, const std::string& name) {
  ordered config = *shipped;
  if (!changes.empty()) {
    auto parsed = config::parse_roles(changes, name);
    if (!parsed)
      return parsed.error();
    if (!parsed->is_object())
      return fail(ec::malformed,
                  name + ": must be an object, is " + config::kind_of(parsed->type()));
    config = overlaid(*shipped, *parsed);
    if (error why = config::check_roles(config, name))
      return why;
  }
  role_book made;
  made.fill(std::move(values), std::move(shipped), std::move(config));
  return made;
}

void role_book::fill(std::shared_ptr<const settings> values, std::shared_ptr<const ordered> shipped,
                     ordered config) {
  values_ = std::move(values);
  shipped_ = std::move(shipped);
  config_ = std::move(config);
  config_.erase(revision_name);
  for (const auto& [name, role] : config_["roles"].items()) {
    by_name_.emplace(lower_case(name), roles_.size());
    roles_.push_back(config::read_role(name, role, *values_));
  }
  for (std::size_t i = 0; i < roles_.size(); ++i)
    if (!roles_[i].shortname.empty())
      by_name_.emplace(lower_case(roles_[i].shortname), i);
  default_ = by_name_.at(lower_case(config_["default_role"].get<std::string>()));
  auto chosen = config_.find("selected_role");
  bool named = chosen != config_.end() && chosen->is_string();
  selected_ = named ? by_name_.at(lower_case(chosen->get<std::string>())) : default_;
  config_["selected_role"] = roles_[selected_].name;
  revision_ = revision_of(config_);
  ordered shown = without_secrets(config_);
  shown[revision_name] = revision_;
  public_text_ = shown.dump();
}

const role_info* role_book::look_up(std::string_view name) const {
  if (name.empty())
    return &roles_[selected_];
  auto found = by_name_.find(lower_case(name));
  return found == by_name_.end() ? nullptr : &roles_[found->second];
}

expected<role_info> role_book::find(std::string_view name) const {
  if (const role_info* found = look_up(name))
    return *found;
  return fail(ec::not_found,
              "Role '" + std::string{name.substr(0, limits::name_bytes_max)} + "' not found");
}

expected<role_list> role_book::list(const std::string& role) const {
  role_list made{.roles = roles_,
                 .default_role = roles_[default_].name,
                 .selected_role = roles_[selected_].name};
  if (role.empty())
    return made;
  auto one = find(role);
  if (!one)
    return one.error();
  made.roles.assign(1, std::move(*one));
  return made;
}

expected<ordered> role_book::joined(ordered posted, const std::string& name) const {
  std::string revision;
  if (auto given = posted.find(revision_name); given != posted.end()) {
    if (given->is_string())
      revision = given->get<std::string>();
    posted.erase(given);
  }
  ordered seen;
  for (const past& each : past_)
    if (each.revision == revision)
      seen = ordered::parse(*each.config);
  std::string lost = restore_secrets(posted, seen.is_null() ? config_ : seen);
  if (!lost.empty())
    return fail(ec::malformed, name + ": \"" + lost + "\" stands for no secret that is kept");
  if (seen.is_null())
    return posted;
  ordered made = joined_values(seen, config_, posted);
  if (error why = config::check_roles(made, name + " with what others changed meanwhile"))
    return why;
  return made;
}

expected<role_book> role_book::replaced(std::string_view text) const {
  const std::string name = "config";
  auto posted = config::parse_roles(text, name);
  if (!posted)
    return posted.error();
  if (error why = config::check_roles(*posted, name))
    return why;
  posted->erase(order_name);
  auto config = joined(std::move(*posted), name);
  if (!config)
    return config.error();
  role_book made;
  made.fill(values_, shipped_, overlaid(*shipped_, difference(*shipped_, *config)));
  made.remember(*this);
  return made;
}

expected<role_book> role_book::selected(std::string_view role) const {
  const role_info* found = role.empty() ? nullptr : look_up(role);
  if (found == nullptr)
    return fail(ec::not_found,
                "Role '" + std::string{role.substr(0, limits::name_bytes_max)} + "' not found");
  ordered config = config_;
  config["selected_role"] = found->name;
  role_book made;
  made.fill(values_, shipped_, std::move(config));
  made.remember(*this);
  return made;
}

void role_book::remember(const role_book& before) {
  past_ = before.past_;
  if (before.revision_ == revision_)
    return;
  past_.push_back({before.revision_, std::make_shared<const std::string>(before.config_.dump())});
  std::size_t total = 0;
  for (const past& each : past_)
    total += each.config->size();
  for (; past_.size() > past_max || total > past_bytes_max; past_.pop_front())
    total -= past_.front().config->size();
}

std::string role_book::changes_text() const {
  return difference(*shipped_, config_).dump(2) + "\n";
}

} // namespace berth
