// SPDX-License-Identifier: Apache-2.0
#include "actors/workflows/stand_in.hpp"

#include "actors/workflows/reading.hpp"

#include <algorithm>
#include <array>
#include <set>

namespace berth {

namespace {

/// Names that clients of the contract use and no configuration of theirs has.
struct known_absence {
  std::string_view wanted;
  std::string_view who;
};

constexpr std::array known_absences{
    known_absence{"multi-agent analyst", "BusinessAnalyst"},
    known_absence{"parallel processing coordinator", "OrchestratorAgent"},
    known_absence{"workflow coordinator", "OrchestratorAgent"},
    known_absence{"quality optimizer", "EvaluatorAgent"}};

const role_info* find(const role_list& roles, std::string_view wanted) {
  std::string name = reading::lower(reading::trimmed(wanted));
  for (const role_info& each : roles.roles)
    if (reading::lower(each.name) == name)
      return &each;
  for (const role_info& each : roles.roles)
    if (!each.shortname.empty() && reading::lower(each.shortname) == name)
      return &each;
  return nullptr;
}

/// The words of a name, also of one like "BusinessAnalyst"; what every agent is called is none.
std::set<std::string> words_of(std::string_view name) {
  std::set<std::string> words;
  std::string word;
  auto end = [&] {
    std::string made = reading::lower(word);
    if (made.size() > 2 && made != "agent" && made != "the")
      words.insert(made);
    word.clear();
  };
  auto is_upper = [](char c) { return c >= 'A' && c <= 'Z'; };
  for (std::size_t i = 0; i < name.size(); ++i) {
    char c = name[i];
    bool letter = is_upper(c) || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (!letter || (is_upper(c) && i > 0 && !is_upper(name[i - 1])))
      end();
    if (letter)
      word += c;
  }
  end();
  return words;
}

/// The role that is nearest to one that is not there; null: none is near.
const role_info* find_near(const role_list& roles, std::string_view wanted) {
  std::string name = reading::lower(reading::trimmed(wanted));
  for (const known_absence& each : known_absences)
    if (each.wanted == name)
      if (const role_info* who = find(roles, each.who))
        return who;
  auto words = words_of(wanted);
  const role_info* nearest = nullptr;
  std::ptrdiff_t most = 0;
  for (const role_info& each : roles.roles) {
    auto own = words_of(each.name);
    auto shared =
        std::ranges::count_if(words, [&](const auto& word) { return own.contains(word); });
    if (shared > most) {
      most = shared;
      nearest = &each;
    }
  }
  return nearest;
}

} // namespace

found_role find_or_stand_in(const role_list& roles, std::string_view wanted,
                            std::string_view instead) {
  if (const role_info* itself = find(roles, wanted))
    return {itself->name, true};
  if (roles.roles.empty())
    return {std::string{wanted}, true};
  const role_info* who = find_near(roles, wanted);
  if (who == nullptr && !instead.empty())
    who = find(roles, instead);
  if (who == nullptr && !instead.empty())
    who = find_near(roles, instead);
  if (who == nullptr)
    who = find(roles, roles.default_role);
  return {who != nullptr ? who->name : roles.roles.front().name, false};
}

} // namespace berth
