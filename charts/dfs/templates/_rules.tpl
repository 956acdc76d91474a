{{/*
What the operator may do in a namespace that it serves: nothing that is not used, each rule with
its use. The end-to-end tests compare this with the audit log.
*/}}
{{- define "dfs.rules" -}}
# Clusters: seen, and their finalizer set and taken away. The spec is never written.
- apiGroups: [dfs.io]
  resources: [dfsclusters]
  verbs: [get, list, watch, patch]
- apiGroups: [dfs.io]
  resources: [dfsclusters/status]
  verbs: [patch]
# What it makes names the cluster as its owner, with blockOwnerDeletion.
- apiGroups: [dfs.io]
  resources: [dfsclusters/finalizers]
  verbs: [update]
# Coordinators and datanodes: server-side apply, deleted when their cluster is stopped or goes.
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch, create, patch]
# Deleted as well where the spec wants them no longer.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# The join secret of a cluster: made once, read by its name, never listed, and deleted only with
# the data. Whether the Secret for an etcd is there.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, delete]
# Metadata and data: claims of the coordinator are made here, those of datanodes by their
# StatefulSet. Deleted only where the deletion policy says so and was confirmed.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
# Which pod is which datanode; a rolling update deletes them one at a time.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
# For clusters with monitoring.serviceMonitor, where the Prometheus operator is there.
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors]
  verbs: [get, list, create, patch, delete]
# What it did, and why it does not.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
