// Every op of the scdr namespace, and nothing else: the table of contents of the native side.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(scdr, m) {
  m.def(
      "mf_sgd_epoch_(Tensor(a!) user, Tensor(b!) item, Tensor users, Tensor items, "
      "Tensor ratings, Tensor order, *, float lr, int batch_size, "
      "Tensor(c!)? user_bias=None, Tensor(d!)? item_bias=None, float offset=0.0, "
      "int steps=0, float? step_size=None, float radius=0.0, str inner=\"pgd\", "
      "float user_penalty=0.0, float item_penalty=0.0, "
      "float user_bias_penalty=0.0, float item_bias_penalty=0.0, "
      "Tensor? user_inverse_count=None, Tensor? item_inverse_count=None, "
      "float? clip_norm=None, Tensor(e!)? adam_step=None, "
      "float beta1=0.9, float beta2=0.999, float eps=1e-8, "
      "Tensor(f!)? user_first=None, Tensor(g!)? user_second=None, "
      "Tensor(h!)? item_first=None, Tensor(i!)? item_second=None, "
      "Tensor(j!)? user_bias_first=None, Tensor(k!)? user_bias_second=None, "
      "Tensor(l!)? item_bias_first=None, Tensor(m!)? item_bias_second=None) -> Tensor");
  m.def(
      "pgd_perturb_mlp(Tensor user, Tensor item, Tensor rating, Tensor w1, Tensor? b1, "
      "Tensor w2, Tensor? b2, *, int steps, float? step_size=None, float radius) -> Tensor");
  m.def(
      "recommend_topk(Tensor user_vectors, Tensor item_vectors, int k, *, Tensor? offsets=None, "
      "Tensor? exclude_offsets=None, Tensor? exclude_items=None) -> (Tensor, Tensor)");
  m.def(
      "mapping_sgd_epoch_(Tensor(a!) user, Tensor item, Tensor(b!) w1, Tensor(c!)? b1, "
      "Tensor(d!) w2, Tensor(e!)? b2, Tensor users, Tensor items, Tensor ratings, Tensor order, *, "
      "float lr, int batch_size, int steps, float? step_size=None, float radius, "
      "float weight_decay=0.0, float? clip_norm=None, bool train_user=True, "
      "Tensor(f!)? adam_step=None, float beta1=0.9, float beta2=0.999, float eps=1e-8, "
      "Tensor(g!)? user_first=None, Tensor(h!)? user_second=None, "
      "Tensor(i!)? w1_first=None, Tensor(j!)? w1_second=None, "
      "Tensor(k!)? b1_first=None, Tensor(l!)? b1_second=None, "
      "Tensor(m!)? w2_first=None, Tensor(n!)? w2_second=None, "
      "Tensor(o!)? b2_first=None, Tensor(p!)? b2_second=None) -> Tensor");
  m.def(
      "sharp_mf_loss(Tensor user, Tensor item, Tensor rating, *, int steps, float step_size, "
      "float radius, str inner) -> (Tensor, Tensor, Tensor)");
  m.def(
      "sharp_mf_loss_backward(Tensor grad, Tensor user, Tensor item, Tensor error, Tensor along, "
      "*, str inner) -> (Tensor, Tensor, Tensor)");
  m.def(
      "sharp_mapping_loss(Tensor user, Tensor item, Tensor rating, Tensor w1, Tensor? b1, "
      "Tensor w2, Tensor? b2, *, int steps, float step_size, float radius) -> (Tensor, Tensor)");
  m.def(
      "sharp_mapping_loss_backward(Tensor grad, Tensor moved, Tensor item, Tensor rating, "
      "Tensor w1, Tensor? b1, Tensor w2, Tensor? b2, *, bool item_too) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "factor_posteriors_(Tensor(a!) moments, Tensor start, Tensor others, Tensor ratings, "
      "Tensor other_moments, Tensor precision, Tensor group, Tensor? prior_mean=None, *, "
      "float noise) -> Tensor");
  m.def("tanh(Tensor x) -> Tensor");
}
