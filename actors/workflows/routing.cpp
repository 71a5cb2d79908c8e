// SPDX-License-Identifier: Apache-2.0
#include "actors/workflows/bounds.hpp"
#include "actors/workflows/brief.hpp"
#include "actors/workflows/pattern.hpp"
#include "actors/workflows/reading.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

/// Routing: a model says which route a task takes; by the words and the length of the task where it
/// does not. The role and the model of the route then answer.
namespace berth {

namespace {

constexpr const char* classify_id = "classify";
constexpr std::string_view by_model = "model";
constexpr std::string_view by_words = "keyword_and_length_based";
/// From here on a task is not simple.
constexpr double complex_from = 0.7;

/// Roles that serve workflows themselves, or that the first two routes name.
constexpr std::array<std::string_view, 6> not_routes{"Default",         "OrchestratorAgent",
                                                     "GeneratorAgent",  "EvaluatorAgent",
                                                     "SimpleTaskAgent", "ComplexTaskAgent"};

workflow_step own_route(std::string id, std::string name, std::string role, std::string purpose) {
  workflow_step made;
  made.id = std::move(id);
  made.name = std::move(name);
  made.role = std::move(role);
  made.prompt = std::move(purpose);
  return made;
}

/// A simple one, a complex one, and one for each role that says what it is good at.
std::vector<workflow_step> default_routes(const std::vector<role_info>& roles) {
  std::vector<workflow_step> made{
      own_route("simple_route", "Simple task", "SimpleTaskAgent",
                "Short questions and small tasks that need one step and no special knowledge."),
      own_route("complex_route", "Complex task", "ComplexTaskAgent",
                "Tasks of several steps or fields, designs, analyses, whatever needs thought.")};
  for (const role_info& role : roles) {
    bool serves = std::ranges::find(not_routes, role.name) == not_routes.end();
    if (!serves || role.description.empty() || made.size() >= limits::routes_max)
      continue;
    made.push_back(own_route(role.name, role.name, role.name, role.description));
  }
  return made;
}

std::vector<workflow_step> routes_of(const run_view& run) {
  return run.request.steps.empty() ? default_routes(run.roles) : run.request.steps;
}

const workflow_step* find_route(const std::vector<workflow_step>& routes, std::string_view wanted) {
  std::string name = reading::lower(reading::trimmed(wanted));
  for (const workflow_step& each : routes)
    if (reading::lower(each.id) == name)
      return &each;
  for (const workflow_step& each : routes)
    if (reading::lower(each.name) == name || reading::lower(each.role) == name)
      return &each;
  return nullptr;
}

/// The words of a text in lower case, short ones left out.
std::set<std::string> words_of(std::string_view text) {
  std::set<std::string> words;
  std::string word;
  for (char c : reading::lower(text) + " ") {
    bool letter = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')
                  || (static_cast<unsigned char>(c) & 0x80) != 0;
    if (letter) {
      word += c;
      continue;
    }
    if (word.size() > 3)
      words.insert(word);
    word.clear();
  }
  return words;
}

/// How complex a task looks, 0 to 1.
double complexity_of(std::string_view prompt) {
  struct weight {
    std::string_view word;
    double value;
  };
  constexpr std::array weights{
      weight{"analyz", .15},     weight{"analys", .15},     weight{"architect", .2},
      weight{"design", .15},     weight{"optimi", .15},     weight{"implement", .15},
      weight{"integrat", .15},   weight{"complex", .2},     weight{"comprehensive", .2},
      weight{"compare", .1},     weight{"research", .15},   weight{"algorithm", .15},
      weight{"distributed", .2}, weight{"concurren", .15},  weight{"security", .1},
      weight{"multiple", .1},    weight{"step by step", .1}};
  std::string text = reading::lower(prompt);
  double sum = 0.3 + static_cast<double>(text.size()) / 200 * 0.3;
  for (const weight& each : weights)
    if (text.find(each.word) != std::string::npos)
      sum += each.value;
  return std::min(1.0, sum);
}

struct choice {
  std::string route;
  double confidence = 0;
  std::string reason;
  std::string_view method = by_model;
};

/// The route that shares most words with the task; else the simple or the complex one; else the
/// first.
choice choose_by_words(const std::vector<workflow_step>& routes, const std::string& prompt,
                       std::string why) {
  double complexity = complexity_of(prompt);
  bool is_complex = complexity > complex_from;
  auto task = words_of(prompt);
  const workflow_step* best = nullptr;
  std::size_t most = 0;
  for (const workflow_step& each : routes) {
    auto own = words_of(each.id + " " + each.name + " " + each.role + " " + each.prompt);
    auto shared = static_cast<std::size_t>(
        std::ranges::count_if(task, [&](const std::string& word) { return own.contains(word); }));
    if (shared > most) {
      most = shared;
      best = &each;
    }
  }
  const char* kind = is_complex ? "complex" : "simple";
  const workflow_step* by_kind = nullptr;
  for (const workflow_step& each : routes)
    if (by_kind == nullptr && reading::lower(each.id).find(kind) != std::string::npos)
      by_kind = &each;
  choice made{.method = by_words};
  made.reason = std::move(why) + "; by its words and length the task is " + kind + " ("
                + std::to_string(std::lround(complexity * 100)) + "%)";
  // One shared word is no sign where simple and complex routes are told apart.
  if (best != nullptr && (most > 1 || by_kind == nullptr)) {
    made.route = best->id;
    made.confidence = std::min(0.9, 0.4 + 0.1 * static_cast<double>(most));
    made.reason += " and shares " + std::to_string(most) + " words with this route";
  } else if (by_kind != nullptr) {
    made.route = by_kind->id;
    made.confidence = is_complex ? 0.95 : 0.85;
  } else {
    made.route = routes.front().id;
    made.confidence = 0.3;
    made.reason += "; no route fits better than the first";
  }
  return made;
}

choice choose(const std::vector<workflow_step>& routes, const std::string& prompt,
              const step_info& classified) {
  if (classified.status != workflow_status::completed)
    return choose_by_words(routes, prompt, "no model classified it (" + classified.error + ")");
  auto answer = reading::object_in(classified.output);
  if (!answer)
    return choose_by_words(routes, prompt, "the model's classification is not JSON");
  auto named = reading::text_of(*answer, "route");
  if (!named)
    return choose_by_words(routes, prompt, "the model's classification names no route");
  const workflow_step* found = find_route(routes, *named);
  if (found == nullptr)
    return choose_by_words(routes, prompt,
                           "the model chose \"" + reading::shortened(*named, 100)
                               + "\", which is no route");
  double confidence = reading::number_of(*answer, "confidence").value_or(0.5);
  if (confidence > 1)
    confidence /= 100;
  return {.route = found->id,
          .confidence = std::clamp(confidence, 0.0, 1.0),
          .reason = reading::text_of(*answer, "reason").value_or("the model gave no reason"),
          .method = by_model};
}

class routing : public pattern {
public:
  std::string_view role() const override { return "DevelopmentAgent"; }
  std::string_view overall_role() const override { return "OrchestratorAgent"; }

  outlook look(const run_view& run) const override {
    outlook seen;
    seen.steps_expected = 2;
    seen.is_exact = true;
    const step_info* classified = run.find(classify_id);
    if (classified == nullptr)
      seen.start.push_back(ask_classification(run));
    else if (is_terminal(classified->status))
      go_on(run, *classified, seen);
    return seen;
  }

  /// Whatever a model said of the task: in the end it has a route, and the output says which.
  std::vector<remark> read(const run_view& run, step_info& ended) const override {
    if (ended.kind != "classify")
      return {};
    choice made = choose(routes_of(run), run.request.prompt, ended);
    std::vector<remark> told;
    if (made.method == by_words)
      told.push_back({progress_kind::warning, ended.id, made.reason});
    ended.status = workflow_status::completed;
    ended.error.clear();
    ended.confidence = made.confidence;
    ended.reason = made.reason;
    ended.output = json_text(json{{"route", made.route},
                                  {"confidence", made.confidence},
                                  {"reason", made.reason},
                                  {"method", made.method},
                                  {"complexity", complexity_of(run.request.prompt)}});
    told.push_back({progress_kind::decision, ended.id,
                    "route " + made.route + " (confidence "
                        + std::to_string(std::lround(made.confidence * 100))
                        + "%): " + made.reason});
    return told;
  }

private:
  static step_order ask_classification(const run_view& run) {
    std::string list;
    for (const workflow_step& each : routes_of(run)) {
      list += "- " + each.id;
      if (!each.name.empty() && each.name != each.id)
        list += " (" + each.name + ")";
      if (!each.prompt.empty())
        list += ": " + reading::shortened(each.prompt, 600);
      list += '\n';
    }
    step_order made;
    made.id = classify_id;
    made.name = "Classify the task";
    made.kind = "classify";
    made.how = asking::json_value;
    made.role = overall_role_of(run.request);
    made.model = run.request.model;
    made.prompt =
        brief{}
            .part("Routes", list)
            .part("Task", run.request.prompt)
            .ask("Choose the route that serves this task best. Do not do the task. Answer with one "
                 "JSON object and nothing else: {\"route\": \"id of the route\", \"confidence\": "
                 "number from 0 to 1, \"reason\": \"one sentence\"}")
            .text();
    return made;
  }

  static void go_on(const run_view& run, const step_info& classified, outlook& seen) {
    auto routes = routes_of(run);
    auto told = reading::object_in(classified.output);
    std::string id = told ? reading::text_of(*told, "route").value_or("") : "";
    const workflow_step* route = find_route(routes, id);
    if (route == nullptr) // the roles changed while no server ran
      route = &routes.front();
    const step_info* taken = run.find(route->id);
    if (taken == nullptr) {
      step_order made = order_of(run.request, *route, "route");
      made.depends_on = {classify_id};
      made.reason = classified.reason;
      made.prompt = run.request.prompt;
      seen.start.push_back(std::move(made));
    } else if (taken->status == workflow_status::completed) {
      seen.end = ending{.result = taken->output, .chosen = taken->id};
    } else if (is_terminal(taken->status)) {
      seen.end = ending{.status = workflow_status::failed,
                        .chosen = taken->id,
                        .error = "route " + taken->id + ": " + taken->error};
    }
  }
};

} // namespace

const pattern& routing_pattern() {
  static const routing made;
  return made;
}

} // namespace berth
