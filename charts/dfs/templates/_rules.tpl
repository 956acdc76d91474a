{{/*
Permissions of the operator in a namespace that it serves: none that is not used, each rule with
its use. The end-to-end tests compare them with the audit log.
*/}}
{{- define "dfs.rules" -}}
# Clusters: read them, set and remove their finalizer. The spec is never written.
- apiGroups: [dfs.io]
  resources: [dfsclusters]
  verbs: [get, list, watch, patch]
- apiGroups: [dfs.io]
  resources: [dfsclusters/status]
  verbs: [patch]
# Its objects name the cluster as their owner, with blockOwnerDeletion.
- apiGroups: [dfs.io]
  resources: [dfsclusters/finalizers]
  verbs: [update]
# Coordinators and datanodes: server-side apply, deletion when their cluster is stopped or deleted.
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch, create, patch]
# Also deleted when the spec no longer requires them.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# The join secret of a cluster: created once, read by name, never listed, and deleted only with the
# data. Also reads whether the Secret for etcd exists.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, delete]
# Metadata and data: claims of the coordinator are created by the operator, those of datanodes by
# their StatefulSet. Deleted only if the deletion policy says so and was confirmed.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
# Maps pods to datanodes; a rolling update deletes them one at a time.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
# For clusters with monitoring.serviceMonitor, if the Prometheus operator is installed.
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors]
  verbs: [get, list, create, patch, delete]
# Events about its actions, and about what prevents them.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
